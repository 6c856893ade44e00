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
        # A mark is kept only where it is known that it is not reached: a seal whose answer is lost may have reached it.
        mark, self._mark = self._mark or await self._audit.mark(self._epoch), None
        if mark is None:
            return _EVERY
        seal = await self._audit.seal(self._epoch, mark)
        if seal is None:
            self._mark = mark
            return _SOON
        # The log goes elsewhere than the database: this line is what proves later that nothing was cut off.
        _log.info("audit log sealed", head=seal.head, rows=seal.rows)
        if seal.last_seq < mark.seq:
            self._mark = mark
            return 0.0
        return _EVERY
