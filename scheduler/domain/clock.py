"""The one injectable clock: whatever decides by time is handed one.

Time is read elsewhere only by the guard, which takes in next to nothing, by the client, which has no server's parts,
and where nothing but the bound of a wait depends on it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is due, monotonic time for how long, boot time for leases shared between processes."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; stops while the machine is suspended."""
        ...

    def boottime(self) -> float:
        """Return seconds since boot, suspension included: comparable between processes of one machine."""
        ...


class SystemClock:
    """The machine's clocks, with an offset (seconds) that tests use to jump wall time."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def now(self) -> datetime:
        """Return the machine's UTC time plus the offset."""
        now = datetime.now(UTC)
        return now + timedelta(seconds=self.offset) if self.offset else now

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def boottime(self) -> float:
        """Return CLOCK_BOOTTIME where the platform has it (Linux), else the monotonic clock."""
        clock = getattr(time, "CLOCK_BOOTTIME", None)
        return time.monotonic() if clock is None else time.clock_gettime(clock)
