"""Unfold: runs of workflows that are due become runs of their tasks, and end when these have ended."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from scheduler.broker import BrokerUnavailable
from scheduler.control.leading import Leading
from scheduler.store.unfolding import Unfolding

_BATCH: Final = 50  # workflow runs, each a transaction


class Unfolder:
    """The workflow loop of one term. With no workflow run under way a step is two looks at empty indexes."""

    def __init__(self, leading: Leading, unfolding: Unfolding) -> None:
        self._epoch = leading.epoch
        self._settings = leading.settings
        self._broker = leading.broker
        self._promote = leading.promote
        self._unfolding = unfolding

    async def step(self) -> float:
        """Let a batch of workflow runs go on; return when there will be more. Raises TermLost, StoreUnavailable."""
        due = await self._unfolding.due(_BATCH)
        for run_id in due:
            await self._unfolding.go_on(self._epoch, run_id)
        abandoned, requested = await self._unfolding.abandoned(self._epoch, _BATCH)
        with suppress(BrokerUnavailable):  # workers hear of it with their next renewal
            for run_id, worker_id in requested:
                await self._broker.publish(f"worker:{worker_id}", str(run_id).encode())
        if due or abandoned:
            self._promote()
            return 0.0
        return self._settings.poll
