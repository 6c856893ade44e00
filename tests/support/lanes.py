"""What Redis holds of a lane, found out by plain commands, as an operator would."""

from __future__ import annotations

from typing import NamedTuple

from redis.exceptions import ResponseError

from scheduler.broker import Broker
from scheduler.broker.keys import lane_keys


class LaneState(NamedTuple):
    """A lane at one moment.

    `ready` counts by priority, 0 to 9; `undelivered` is offered and not yet taken; `pending`
    is taken and not yet settled; `credit` is the sum of the free slots of `workers` live workers.
    """

    ready: tuple[int, ...]
    undelivered: int
    pending: int
    credit: int
    workers: int


async def lane_state(broker: Broker, lane: str = "default") -> LaneState:
    _, _, stream, credit, _ = lane_keys(lane)
    length, groups, offers, (seconds, microseconds) = await broker._link.call(
        ("XLEN", stream), ("XINFO", "GROUPS", stream), ("HGETALL", credit), ("TIME",)
    )
    now = int(seconds) * 1000 + int(microseconds) // 1000
    slots = [
        int(free)
        for worker, (free, expiry) in zip(offers[::2], map(bytes.split, offers[1::2]), strict=True)
        if worker != b"=" and int(expiry) > now
    ]
    pending = 0 if isinstance(groups, ResponseError) else sum(group[group.index(b"pending") + 1] for group in groups)
    ready = (await broker.stats([lane]))[lane].ready
    return LaneState(ready, length - pending, pending, sum(slots), len(slots))
