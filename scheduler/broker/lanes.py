"""Ready sets: what is queued, most urgent first, before it is offered to anybody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec

from scheduler.broker.keys import lane_keys, open_key
from scheduler.broker.library import Functions
from scheduler.broker.link import Command, Reply
from scheduler.domain.messages import VERSION, Dispatch, encode
from scheduler.domain.run import Queued

WINDOW: Final = 16_384
"""Most ready runs that a lane holds of one priority; the rest waits in PostgreSQL."""

_CHUNK: Final = 500  # rows for one call: some 2 ms of the server's time, and within Lua's stack
_CHUNKS_AT_ONCE: Final = 20  # far less than a call's deadline
_BAND: Final = 2**49  # as in the functions
_LATEST: Final = _BAND - 1
_pack = msgspec.msgpack.Encoder().encode


class LaneStats(msgspec.Struct, frozen=True):
    """A lane at one moment: what is ready, by priority 0 to 9, and whether the fast path may go on."""

    ready: tuple[int, ...]
    open: bool


def score(priority: int, run_at: float) -> int:
    """Return the place of a run in its ready set: smaller leaves earlier. `run_at` is a POSIX timestamp in seconds."""
    return (9 - priority) * _BAND + min(max(int(run_at * 1000), 0), _LATEST)


class Lanes:
    """The ready sets of all lanes."""

    def __init__(self, functions: Functions, window: int) -> None:
        self._functions = functions
        self._window = window

    async def push(self, runs: Sequence[Queued]) -> dict[str, bool]:
        """Add the runs that are absent, or known with an older seq only, and offer what credit allows.

        Return, for each lane, whether the fast path may go on. What does not fit into its window stays `queued` in
        PostgreSQL, and the reconciler brings it when there is room.
        """
        by_lane: dict[str, list[Queued]] = {}
        for run in runs:
            by_lane.setdefault(run.lane, []).append(run)
        commands: list[Command] = []
        to: list[str] = []  # the lane of each command
        for lane, queued in by_lane.items():
            rest = iter(queued)
            left = len(queued)
            while chunk := list(islice(rest, _CHUNK)):
                left -= len(chunk)
                rows = _pack([(run.run_id, run.seq, score(run.priority, run.run_at.timestamp())) for run in chunk])
                messages = [encode(Dispatch(VERSION, run.run_id, run.seq, run.traceparent)) for run in chunk]
                to.append(lane)
                commands.append(
                    self._functions.command("push", lane_keys(lane), rows, self._window, int(left == 0), *messages)
                )
        opened: dict[str, bool] = {}
        for first in range(0, len(commands), _CHUNKS_AT_ONCE):
            some = slice(first, first + _CHUNKS_AT_ONCE)
            replies = await self._functions.call(*commands[some])
            opened |= {lane: bool(reply) for lane, reply in zip(to[some], replies, strict=True)}
        return opened

    async def is_open(self, lanes: Iterable[str]) -> set[str]:
        """Return those of the lanes that the API may push to by itself."""
        names = list(lanes)
        replies = await self._functions.call(*(("EXISTS", open_key(lane)) for lane in names))
        return {lane for lane, reply in zip(names, replies, strict=True) if reply}

    async def mark_open(self, lane: str) -> None:
        """Let the API push to the lane by itself, until a window is full."""
        await self._functions.call(("SET", open_key(lane), b"1"))

    async def mark_closed(self, lane: str) -> None:
        """Make new runs of the lane wait for the leader."""
        await self._functions.call(("DEL", open_key(lane)))

    async def stats(self, lanes: Iterable[str]) -> dict[str, LaneStats]:
        """Return the state of each lane."""
        names = list(lanes)
        replies = await self._functions.call(*(self._functions.command("stats", lane_keys(lane)) for lane in names))
        return {lane: _stats(reply) for lane, reply in zip(names, replies, strict=True)}

    async def clear(self, lane: str) -> None:
        """Forget the lane's runs and offers, so that it can be rebuilt from PostgreSQL; credit stays."""
        await self._functions.one("clear", lane_keys(lane))


def _stats(reply: Reply) -> LaneStats:
    is_open, *ready = reply
    return LaneStats(tuple(ready), bool(is_open))
