"""Gatekeep: runs that wait behind gates are queued as far as the gates allow; part of the promoter's step.

With nothing behind a gate this costs one look at an empty index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from scheduler.broker import BrokerUnavailable
from scheduler.control.leading import Leading
from scheduler.domain.gates import Contender, Head, Window, admit, contend, in_turn, room_for
from scheduler.domain.run import Queued
from scheduler.pace import Pace, rest_after
from scheduler.store.gates import Admission, Gates, Position

_PAGE: Final = 500  # gates, by lane and priority, that one step looks at, or admits from
_MANY: Final = 10_000  # contenders of which it is decided before the walk is over whose turn it will not be
_BEGINNING: Final[Position] = ("", "", -1)
_CROWDED: Final = 0.05  # seconds after which workers have taken some of what stands queued


class Gatekept(msgspec.Struct, frozen=True):
    """What a step came to: runs to offer, and when there will be more (None: nothing waits behind a gate)."""

    queued: Sequence[Queued]
    delay: float | None


class Gatekeeper:
    """Walks along all that waits behind gates, a page a step, and then admits what may go, in the order of turns."""

    def __init__(self, leading: Leading, gates: Gates) -> None:
        self._epoch = leading.epoch
        self._settings = leading.settings
        self._broker = leading.broker
        self._clock = leading.clock
        self._gates = gates
        self._pace = Pace(leading.settings.poll, _CROWDED)
        self._begin()

    def _begin(self) -> None:
        """Begin a walk."""
        self._after: Position | None = _BEGINNING  # None at its end
        self._contenders: list[Contender] = []
        self._sift_at = _MANY  # so many contenders: twice those that were left when they were sifted last
        self._queued: dict[Window, int] = {}
        self._delay: float | None = None  # what it has come to so far
        self._crowded = False
        self._seconds = 0.0

    async def step(self, rooms: Mapping[Window, int]) -> Gatekept:
        """Admit runs into the lanes that have `rooms`. Raises TermLost, StoreUnavailable."""
        began = self._clock.monotonic()
        queued: Sequence[Queued] = ()
        if self._after is not None:
            self._after = await self._walk(self._after, rooms)
        if self._after is None and self._contenders:
            queued = await self._admit(rooms)
        self._seconds += self._clock.monotonic() - began
        if self._after is not None or self._contenders:
            return Gatekept(queued, 0.0)
        delay = self._rest()
        self._begin()
        return Gatekept(queued, delay)

    async def _walk(self, after: Position, rooms: Mapping[Window, int]) -> Position | None:
        """Look at a page; return where the next one begins, None if it was the last."""
        page = await self._gates.heads(after, _PAGE)
        lanes = {lane for lane, _ in rooms}
        here = [head for head in page if head.run.lane in lanes]  # the queues of others are paused
        if here:
            self._look_again_in(self._settings.poll, *(head.due_in for head in here if head.due_in > 0))
            await self._gather([head for head in here if head.due_in <= 0], rooms)
        last = len(page) < _PAGE
        if last or len(self._contenders) > self._sift_at:
            self._contenders = in_turn(self._contenders, self._queued, rooms)
            self._sift_at = max(_MANY, 2 * len(self._contenders))
        return None if last else (page[-1].run.lane, page[-1].run.gate, page[-1].run.priority)

    async def _gather(self, due: Sequence[Head], rooms: Mapping[Window, int]) -> None:
        """Note whose runs may go. Where there is no room nothing is counted, for then all have to wait."""
        self._queued |= await self._gates.queued({head.run.lane for head in due if head.gate.fairness is not None})
        free = [h for h in due if not h.gate.waits or room_for(h.run, h.gate, self._queued, rooms) > 0]
        self._crowded = self._crowded or len(free) < len(due)
        standing, place_in = await self._gates.standing([head.gate for head in free])
        self._contenders += contend(free, standing, self._settings.batch)
        if place_in is not None:
            self._look_again_in(place_in)

    async def _admit(self, rooms: Mapping[Window, int]) -> Sequence[Queued]:
        """Admit what may go of those whose turn is next."""
        some = self._contenders[:_PAGE]
        gates = {contender.gate.gate: contender.gate for contender in some}
        admission = await self._gates.admit(self._epoch, some, lambda due, standing: admit(due, gates, standing, rooms))
        del self._contenders[:_PAGE]
        if admission.moved:
            self._look_again_in(0.0)
        await self._tell(admission)
        return admission.queued

    def _look_again_in(self, *seconds: float) -> None:
        """Note when this walk should be repeated: the soonest of what its pages say."""
        self._delay = min(seconds if self._delay is None else (self._delay, *seconds))

    def _rest(self) -> float | None:
        """Return the seconds between this walk and the next; None if nothing waits.

        Nobody says when a worker has taken some of what fills a window: it is looked at again soon, but less and less
        often while that brings nothing, and never for more than a small part of the time.
        """
        in_vain = self._crowded and self._delay != 0.0
        rest = rest_after(self._seconds, self._pace.until(0.0 if in_vain else None))
        return self._delay if self._delay is None else min(self._delay, rest)

    async def _tell(self, admission: Admission) -> None:
        with suppress(BrokerUnavailable):  # workers hear of it with their next renewal
            for run_id, worker_id in admission.requested:
                await self._broker.publish(f"worker:{worker_id}", str(run_id).encode())
