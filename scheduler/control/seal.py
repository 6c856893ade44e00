"""Seal: what the audit log has gained is chained to what it held before."""

from __future__ import annotations

from typing import Final

from scheduler.control.leading import Leading
from scheduler.store.audit import Audit, Mark
from scheduler.telemetry import get_logger

_EVERY: Final = 5.0  # seconds
_SOON: Final = 0.5  # seconds, while transactions are waited for

_log = get_logger("audit")


class Sealer:
    """The sealing loop of one term."""

    def __init__(self, leading: Leading, audit: Audit) -> None:
        self._epoch = leading.epoch
        self._audit = audit
        self._mark: Mark | None = None

    async def step(self) -> float:
        """Seal what is complete. Raises TermLost, StoreUnavailable."""
        self._mark = self._mark or await self._audit.mark(self._epoch)
        if self._mark is None:
            return _EVERY
        seal = await self._audit.seal(self._epoch, self._mark)
        if seal is None:
            return _SOON
        # The log goes elsewhere than the database: this line is what proves later that nothing was cut off.
        _log.info("audit log sealed", head=seal.head, rows=seal.rows)
        if seal.last_seq < self._mark.seq:
            return 0.0
        self._mark = None
        return _EVERY
