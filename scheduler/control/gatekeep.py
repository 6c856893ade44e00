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
from scheduler.domain.gates import FAIR_WINDOW, Standing, admit
from scheduler.domain.run import Queued
from scheduler.domain.task import PRIORITIES
from scheduler.pace import Pace, rest_after
from scheduler.store.gates import Admission, Gates, WaitingGate

_PAGE: Final = 500  # gates that one step looks at
_BEGINNING: Final = ("", "")
_CROWDED: Final = 0.05  # seconds after which workers have taken some of what stands queued


class Gatekept(msgspec.Struct, frozen=True):
    """What a step came to: runs to offer, and when there will be more (None: nothing waits behind a gate)."""

    queued: Sequence[Queued]
    delay: float | None


class Gatekeeper:
    """Walks the gates, a page a step, and admits what may go."""

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
        self._after = _BEGINNING
        self._delay: float | None = None  # what its pages have come to so far
        self._crowded = False
        self._seconds = 0.0

    async def step(self, rooms: Mapping[tuple[str, int], int]) -> Gatekept:
        """Admit runs into the lanes that have `rooms`. Raises TermLost, StoreUnavailable."""
        began = self._clock.monotonic()
        page = await self._gates.waiting(self._after, _PAGE)
        lanes = {lane for lane, _ in rooms}
        here = [waiting for waiting in page if waiting.lane in lanes]  # the queues of others are paused
        queued: Sequence[Queued] = ()
        if here:
            admission = await self._admit(here, rooms)
            queued = admission.queued
            await self._tell(admission)
            self._look_again(admission)
        self._seconds += self._clock.monotonic() - began
        if len(page) == _PAGE:
            self._after = (page[-1].lane, page[-1].gate.gate)
            return Gatekept(queued, 0.0)
        delay = self._rest()
        self._begin()
        return Gatekept(queued, delay)

    def _look_again(self, admission: Admission) -> None:
        """Note when this walk should be repeated: the soonest of what its pages say."""
        delay = 0.0 if admission.moved else self._settings.poll
        for known in (admission.next_in, self._delay):
            delay = delay if known is None else min(delay, known)
        self._delay = delay
        self._crowded = self._crowded or admission.crowded

    def _rest(self) -> float | None:
        """Return the seconds between this walk and the next; None if nothing waits.

        Nobody says when a worker has taken some of what fills a fair window: it is looked at again soon, but less and
        less often while that brings nothing, and never for more than a small part of the time.
        """
        in_vain = self._crowded and self._delay != 0.0
        rest = rest_after(self._seconds, self._pace.until(0.0 if in_vain else None))
        return self._delay if self._delay is None else min(self._delay, rest)

    async def _tell(self, admission: Admission) -> None:
        with suppress(BrokerUnavailable):  # workers hear of it with their next renewal
            for run_id, worker_id in admission.requested:
                await self._broker.publish(f"worker:{worker_id}", str(run_id).encode())

    async def _admit(self, page: Sequence[WaitingGate], rooms: Mapping[tuple[str, int], int]) -> Admission:
        gates = {waiting.gate.gate: waiting.gate for waiting in page}
        return await self._gates.admit(
            self._epoch, page, self._places, lambda due, standing: admit(due, gates, standing, rooms)
        )

    def _places(self, waiting: WaitingGate, standing: Standing) -> Sequence[int]:
        """Return how many runs of each priority are worth looking at: none where all would have to wait."""
        gate = waiting.gate
        waits = gate.on_conflict in (None, "queue")  # else those that find no place end, and so are looked at
        places = self._settings.batch
        if gate.concurrency is not None and gate.max_runs is not None and waits:
            places = min(places, gate.max_runs - standing.active[gate.concurrency])
        if gate.rate is not None and waits:
            places = min(places, gate.rate[2] - standing.used[gate.rate])
        if gate.fairness is None:
            return [places] * len(PRIORITIES)
        taken = [standing.queued.get((waiting.lane, priority), 0) if waits else 0 for priority in PRIORITIES]
        return [min(places, FAIR_WINDOW - count) for count in taken]
