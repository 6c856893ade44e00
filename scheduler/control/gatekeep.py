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
from scheduler.domain.gates import FAIR_WINDOW, Gate, Standing, admit
from scheduler.domain.run import Queued
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
        self._gates = gates
        self._after = _BEGINNING
        self._delay: float | None = None  # what the pages of this walk have come to so far

    async def step(self, rooms: Mapping[tuple[str, int], int]) -> Gatekept:
        """Admit runs into the lanes that have `rooms`. Raises TermLost, StoreUnavailable."""
        page = await self._gates.waiting(self._after, _PAGE)
        lanes = {lane for lane, _ in rooms}
        here = [waiting for waiting in page if waiting.lane in lanes]  # the queues of others are paused
        queued: Sequence[Queued] = ()
        if here:
            admission = await self._admit(here, rooms)
            queued = admission.queued
            await self._tell(admission)
            self._look_again(admission)
        if len(page) == _PAGE:
            self._after = (page[-1].lane, page[-1].gate.gate)
            return Gatekept(queued, 0.0)
        self._after, delay, self._delay = _BEGINNING, self._delay, None
        return Gatekept(queued, delay)

    def _look_again(self, admission: Admission) -> None:
        """Note when this walk should be repeated: the soonest of what its pages say."""
        delay = 0.0 if admission.moved else _CROWDED if admission.crowded else self._settings.poll
        for known in (admission.next_in, self._delay):
            delay = delay if known is None else min(delay, known)
        self._delay = delay

    async def _tell(self, admission: Admission) -> None:
        with suppress(BrokerUnavailable):  # workers hear of it with their next renewal
            for run_id, worker_id in admission.requested:
                await self._broker.publish(f"worker:{worker_id}", str(run_id).encode())

    async def _admit(self, page: Sequence[WaitingGate], rooms: Mapping[tuple[str, int], int]) -> Admission:
        gates = {waiting.gate.gate: waiting.gate for waiting in page}
        return await self._gates.admit(
            self._epoch, page, self._places, lambda due, standing: admit(due, gates, standing, rooms)
        )

    def _places(self, gate: Gate, standing: Standing) -> int:
        """Return how many runs of a gate are worth looking at: none where all would have to wait."""
        places = self._settings.batch
        if gate.concurrency is not None and gate.max_runs is not None and gate.on_conflict == "queue":
            places = min(places, gate.max_runs - standing.active[gate.concurrency])
        if gate.rate is not None and gate.on_conflict in (None, "queue"):
            places = min(places, gate.rate[2] - standing.used[gate.rate])
        if gate.fairness is not None:
            places = min(places, FAIR_WINDOW)
        return places
