"""What the leader tells of itself: a scheduler has no port, so every API shows it to whoever asks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from scheduler.control.leading import Leading
from scheduler.health import Component
from scheduler.pace import rest_after
from scheduler.store.reconcile import Backlog, Reconcile
from scheduler.store.terms import Terms
from scheduler.wire.health import Part
from scheduler.wire.report import LeaderReport, QueueDepth

_COUNTED_EVERY: Final = 15.0  # seconds
_COUNTED: Final = 20_000  # runs in each lane
_LOOKED_EVERY: Final = 2.0  # seconds, for what fails
_TOLD_EVERY: Final = 10.0  # seconds, if nothing changes
_MOST_QUEUES: Final = 500
_MOST_PARTS: Final = 50
_LONGEST_DETAIL: Final = 300


class Reporter:
    """The telling of one term."""

    def __init__(self, leading: Leading, terms: Terms, reconcile: Reconcile) -> None:
        self._epoch = leading.epoch
        self._health = leading.health
        self._monotonic = leading.clock.monotonic
        self._terms = terms
        self._reconcile = reconcile
        self._queues: list[QueueDepth] = []
        self._told: dict[str, Part] | None = None
        self._tell_at = 0.0

    async def count(self) -> float:
        """Count what waits, which the next report tells. Raises StoreUnavailable."""
        began = self._monotonic()
        before, self._queues = self._queues, depths(await self._reconcile.backlog(_COUNTED))
        now = self._monotonic()
        if self._queues != before:
            self._tell_at = now
        return rest_after(now - began, _COUNTED_EVERY)

    async def tell(self) -> float:
        """Report, soon after something began to fail, ceased to, or was counted anew, and from time to time.

        Raises TermLost, StoreUnavailable.
        """
        failing = parts_that_fail(self._health.snapshot().items())
        now = self._monotonic()
        if self._told is None or failing.keys() != self._told.keys() or now >= self._tell_at:
            await self._terms.report(LeaderReport(epoch=self._epoch, failing=failing, queues=self._queues))
            self._told, self._tell_at = failing, now + _TOLD_EVERY
        return _LOOKED_EVERY


def depths(lanes: Iterable[Backlog]) -> list[QueueDepth]:
    """Sum the lanes of each queue up, the deepest queues first."""
    totals: dict[tuple[str, str], tuple[int, int, float]] = {}
    for lane in lanes:
        key = lane.namespace, lane.queue
        queued, due, age = totals.get(key, (0, 0, 0.0))
        totals[key] = queued + lane.queued, due + lane.due, max(age, lane.oldest_age)
    found = [
        QueueDepth(namespace=namespace, queue=queue, queued=queued, due=due, oldest_due_seconds=age)
        for (namespace, queue), (queued, due, age) in totals.items()
    ]
    return sorted(found, key=lambda depth: -(depth.queued + depth.due))[:_MOST_QUEUES]


def parts_that_fail(parts: Iterable[tuple[str, Component]]) -> dict[str, Part]:
    """Return those that are not well, as they are told."""
    failing = [(name, part) for name, part in parts if not part.ok]
    return {
        name: Part(ok=False, detail=part.detail[:_LONGEST_DETAIL], since=part.since, failures=part.failures)
        for name, part in failing[:_MOST_PARTS]
    }
