"""Dispatch streams: offers of runs to workers, from the offer until it is settled.

An offer that was delivered and never settled (its worker died, or the reply got lost) is dropped after a while; the
reconciler then finds its run queued in PostgreSQL and absent here. A worker whose read broke off asks for what it may
have missed with its next read, so a lost reply costs it nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final
from uuid import UUID

import msgspec
from redis.exceptions import ResponseError

from scheduler.broker.keys import GROUP, lane_keys, stream_key
from scheduler.broker.library import Functions, check
from scheduler.broker.link import Command, Link, Reply
from scheduler.domain.messages import FIELD, Dispatch, decode
from scheduler.telemetry import get_logger

CREDIT_TTL: Final = 5.0
"""Seconds for which free slots count after they were last reported, besides the time of a blocking read."""

_HISTORY: Final = 1000  # entries, asked for after a read that broke off

_pack = msgspec.msgpack.Encoder().encode
_log = get_logger("broker")


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """An offer that was delivered to this worker and has to be settled or given back."""

    lane: str
    entry_id: bytes
    run: Dispatch


class DispatchStreams:
    """The streams of all lanes."""

    def __init__(self, link: Link, functions: Functions) -> None:
        self._link = link
        self._functions = functions
        self._held: set[tuple[str, bytes]] = set()  # given to the caller, neither settled nor given back yet
        self._unsure: set[UUID] = set()  # workers whose last read broke off
        self._turn = 0

    async def read(
        self, lanes: Sequence[str], worker_id: UUID, free: int, block: float, settle: Sequence[Delivery] = ()
    ) -> list[Delivery]:
        """Say that `free` ≥ 1 slots are free and wait up to `block` seconds for offers: at most `free` of them."""
        if free < 1 or not lanes:
            raise ValueError("reading takes a free slot and a lane")
        self._turn += 1
        start = self._turn % len(lanes)  # every lane is first in its turn, or it could starve
        order = [*lanes[start:], *lanes[:start]]
        settling = self._settling(settle)
        deliveries: list[Delivery] = []
        if worker_id in self._unsure:
            deliveries = await self._fetch(order, worker_id, free, None, settling)
            settling = []
        self._unsure.add(worker_id)
        if not deliveries:
            deliveries = await self._fetch(order, worker_id, free, block, settling)
        taken, surplus = deliveries[:free], deliveries[free:]
        if surplus:
            await self.give_back(surplus, worker_id)
        self._unsure.discard(worker_id)
        self._held.update((delivery.lane, delivery.entry_id) for delivery in taken)
        return taken

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Be done with the offers: their runs are claimed, or were somebody else's."""
        await self._functions.call(*self._settling(deliveries))

    async def give_back(self, deliveries: Sequence[Delivery], worker_id: UUID) -> None:
        """Make the runs ready again, each at its old place; the worker counts as full in their lanes until it reads."""
        self._held.difference_update((delivery.lane, delivery.entry_id) for delivery in deliveries)
        worker = str(worker_id)
        await self._functions.call(
            *(self._functions.command("give_back", lane_keys(lane), rows, worker) for lane, rows in _rows(deliveries))
        )

    async def reclaim_idle(self, lanes: Iterable[str], older_than: float) -> int:
        """Drop what was delivered more than `older_than` seconds ago and never settled; return how many that were."""
        idle_ms = int(older_than * 1000)
        replies = await self._functions.call(
            *(self._functions.command("reclaim", lane_keys(lane), idle_ms) for lane in lanes)
        )
        return sum(replies)

    async def forget_worker(self, lanes: Iterable[str], worker_id: UUID) -> int:
        """Take away a dead worker's credit, drop its deliveries and its consumer; return the number of deliveries."""
        replies = await self._functions.call(
            *(self._functions.command("forget_worker", lane_keys(lane), str(worker_id)) for lane in lanes)
        )
        return sum(replies)

    def _offers(self, lanes: Sequence[str], worker_id: UUID, free: int, ttl: float) -> list[Command]:
        worker, ttl_ms = str(worker_id), int(ttl * 1000)
        return [self._functions.command("offer", lane_keys(lane), worker, free, ttl_ms) for lane in lanes]

    def _settling(self, deliveries: Sequence[Delivery]) -> list[Command]:
        self._held.difference_update((delivery.lane, delivery.entry_id) for delivery in deliveries)
        return [self._functions.command("settle", lane_keys(lane), rows) for lane, rows in _rows(deliveries)]

    async def _fetch(
        self, lanes: Sequence[str], worker_id: UUID, free: int, block: float | None, settling: Sequence[Command]
    ) -> list[Delivery]:
        """Settle, offer credit and read, all in one go.

        What is read is new entries or, if `block` is None, those delivered before that the caller does not hold.
        """
        wait = block or 0.0
        commands = [*settling, *self._offers(lanes, worker_id, free, wait + CREDIT_TTL)]
        keys = [stream_key(lane) for lane in lanes]
        # What is held comes along with what was delivered before, so there is no saying how many to ask for.
        start, count = (b"0", _HISTORY) if block is None else (b">", free)
        blocking = () if block is None else (b"BLOCK", max(int(wait * 1000), 1))
        group: Command = (b"XREADGROUP", b"GROUP", GROUP, str(worker_id), b"COUNT", count)
        read: Command = (*group, *blocking, b"STREAMS", *keys, *(start for _ in keys))
        replies = await self._link.call(*commands, read, patience=wait)
        answer: Reply = replies.pop()
        await self._functions.mend(commands, replies)
        if isinstance(answer, ResponseError):
            if not _stream_gone(answer):
                check(answer)
            return []  # the next read's offer creates stream and group anew
        return await self._sort_out(dict(zip(keys, lanes, strict=True)), answer or [])

    async def _sort_out(self, lanes: dict[bytes, str], streams: Sequence[Reply]) -> list[Delivery]:
        deliveries: list[Delivery] = []
        rubbish: list[Delivery] = []
        for key, entries in streams:
            lane = lanes[key]
            for entry_id, fields in entries:
                run = decode(fields[1]) if fields and fields[0] == FIELD else None
                if run is None:
                    rubbish.append(Delivery(lane, entry_id, _salvage(fields)))
                elif (lane, entry_id) not in self._held:
                    deliveries.append(Delivery(lane, entry_id, run))
        if rubbish:
            _log.warning("entries that are no offers were deleted", entries=len(rubbish), lane=rubbish[0].lane)
            await self.settle(rubbish)
        return deliveries


def _rows(deliveries: Sequence[Delivery]) -> list[tuple[str, bytes]]:
    """Return the packed arguments of `settle` and `give_back`, by lane."""
    by_lane = groupby(sorted(deliveries, key=attrgetter("lane")), key=attrgetter("lane"))
    return [(lane, _pack([(d.entry_id.decode(), d.run.run_id, d.run.seq) for d in group])) for lane, group in by_lane]


def _stream_gone(error: ResponseError) -> bool:
    text = str(error)
    return text.startswith(("NOGROUP", "UNBLOCKED"))


def _salvage(fields: Sequence[bytes] | None) -> Dispatch:
    """Return run and seq of a message that we cannot use, as far as they can be made out, to have them forgotten."""
    try:
        _, run_id, seq, *_ = msgspec.msgpack.decode(fields[1] if fields else b"")
        return Dispatch(0, UUID(run_id), int(seq))
    except (msgspec.DecodeError, ValueError, TypeError, AttributeError, IndexError):
        return Dispatch(0, UUID(int=0), -1)
