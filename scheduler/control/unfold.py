"""Unfold: runs of workflows that are due become runs of their tasks, and end when these have ended."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final
from uuid import UUID

from scheduler.broker import BrokerUnavailable
from scheduler.control.leading import Leading
from scheduler.domain.term import TermLost
from scheduler.store.database import StoreUnavailable
from scheduler.store.unfolding import Unfolding
from scheduler.telemetry import get_logger

WORKFLOWS: Final = "scheduler.workflows"
"""The part of health that says whether every workflow run that is due can go on."""

_BATCH: Final = 50  # workflow runs, each a transaction
_AGAIN: Final = 1.0  # seconds after which a run that could not go on is tried again, twice as many each time …
_LONGEST: Final = 300.0  # … and no more than these

_log = get_logger("unfold")


class Unfolder:
    """The workflow loop of one term. With no workflow run under way a step is two looks at empty indexes."""

    def __init__(self, leading: Leading, unfolding: Unfolding) -> None:
        self._epoch = leading.epoch
        self._settings = leading.settings
        self._broker = leading.broker
        self._clock = leading.clock
        self._health = leading.health
        self._promote = leading.promote
        self._unfolding = unfolding
        self._stuck = Stuck()
        self._reported = ""

    async def step(self) -> float:
        """Let a batch of workflow runs go on; return when there will be more. Raises TermLost, StoreUnavailable."""
        began = self._clock.monotonic()
        due = await self._unfolding.due(_BATCH, self._stuck.left(began))
        for run_id in due:
            await self._go_on(run_id)
        if len(due) < _BATCH:
            self._stuck.forget(began, due)
        self._report()
        abandoned, requested = await self._unfolding.abandoned(self._epoch, _BATCH)
        with suppress(BrokerUnavailable):  # workers hear of it with their next renewal
            for run_id, worker_id in requested:
                await self._broker.publish(f"worker:{worker_id}", str(run_id).encode())
        if due or abandoned:
            self._promote()
            return 0.0
        return self._settings.poll

    async def _go_on(self, run_id: UUID) -> None:
        """Let one run go on; leave it for later if it cannot: it must not stop the others."""
        try:
            await self._unfolding.go_on(self._epoch, run_id)
        except (TermLost, StoreUnavailable):
            raise
        except Exception as error:  # noqa: BLE001  # whatever is wrong with this run, the others are served
            self._stuck.note(run_id, self._clock.monotonic())
            _log.error("a workflow run cannot go on", run=str(run_id), error=str(error))
        else:
            self._stuck.free(run_id)

    def _report(self) -> None:
        detail = self._stuck.summary()
        if detail != self._reported:
            self._health.report(WORKFLOWS, not detail, detail)
            self._reported = detail


class Stuck:
    """Workflow runs that could not go on. Each is left for later, for twice as long every time.

    Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._noted: dict[UUID, tuple[float, float]] = {}

    def note(self, run_id: UUID, now: float) -> None:
        """Leave a run for later."""
        known = self._noted.get(run_id)
        seconds = _AGAIN if known is None else min(2 * known[0], _LONGEST)
        self._noted[run_id] = (seconds, now + seconds)

    def free(self, run_id: UUID) -> None:
        """Note that a run went on."""
        self._noted.pop(run_id, None)

    def left(self, now: float) -> list[UUID]:
        """Return those that are still left for later."""
        return [run_id for run_id, (_, until) in self._noted.items() if now < until]

    def forget(self, now: float, due: Iterable[UUID]) -> None:
        """Forget those that were no longer left at `now` and yet not due: somebody has ended them."""
        still = set(due)
        self._noted = {run_id: noted for run_id, noted in self._noted.items() if run_id in still or now < noted[1]}

    def summary(self) -> str:
        """Return a line about all, empty if there are none."""
        return f"{len(self._noted)} workflow runs cannot go on: {min(self._noted)}…" if self._noted else ""
