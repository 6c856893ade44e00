from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from scheduler.broker import CREDIT_TTL, WINDOW, Broker
from scheduler.broker.keys import lane_keys
from scheduler.domain.clock import SystemClock
from scheduler.domain.ids import IdSource
from scheduler.domain.run import Queued

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
_ids = IdSource(SystemClock())


@asynccontextmanager
async def connected(url: str, *, installation: str = "i", window: int = WINDOW) -> AsyncIterator[Broker]:
    async with Broker.connect(
        url, installation=installation, name="test", clock=SystemClock(), window=window
    ) as broker:
        yield broker


async def raw(broker: Broker, *command: bytes | str | int) -> Any:
    """Send any command, as an operator would."""
    return (await broker._functions.call(command))[0]


def queued(
    count: int = 1,
    *,
    lane: str = "default",
    priority: int = 5,
    after: float = 0.0,
    seq: int = 1,
    trace: str | None = None,
) -> list[Queued]:
    """Return new runs, a millisecond apart, the first `after` seconds past noon."""
    return [
        Queued(
            run_id=run_id,
            lane=lane,
            priority=priority,
            run_at=NOON + timedelta(seconds=after, milliseconds=i),
            seq=seq,
            traceparent=trace,
        )
        for i, run_id in enumerate(_ids.take(count))
    ]


def worker() -> UUID:
    return _ids.one()


async def offer(broker: Broker, worker_id: UUID, free: int, ttl: float = CREDIT_TTL) -> None:
    """Say how many of a worker's slots are free, as its read does, but take nothing."""
    await broker._functions.one("offer", lane_keys("default"), str(worker_id), free, int(ttl * 1000))


async def drain(broker: Broker, lane: str = "default", free: int = 1000) -> list[tuple[UUID, int]]:
    """Read and settle everything that the lane offers, in order."""
    reader, seen = worker(), []
    while deliveries := await broker.read([lane], reader, free, 0.001):
        seen += [(delivery.run.run_id, delivery.run.seq) for delivery in deliveries]
        await broker.settle(deliveries)
    return seen
