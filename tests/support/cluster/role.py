"""`python -m tests.support.cluster.role ROLE` runs a role as its console script does, on a clock that a test can move.

The offset (seconds, a double) stands in the file that `DTS_TEST_CLOCK` names, which the test writes to.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from pathlib import Path

from scheduler.domain.clock import SystemClock

VARIABLE = "DTS_TEST_CLOCK"
_OFFSET = struct.Struct("=d")


class MovedClock(SystemClock):
    """The machine's clock plus an offset that others write."""

    def __init__(self) -> None:
        with Path(os.environ[VARIABLE]).open("rb") as file:
            self._page = mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)

    @property
    def offset(self) -> float:  # type: ignore[override]
        return _OFFSET.unpack_from(self._page)[0]


def write_offset(path: Path, seconds: float) -> None:
    """Move the clock of whoever looks at `path`."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(_OFFSET.pack(seconds))


def main(role: str) -> int:
    if role == "guard":
        from scheduler.worker import guard  # noqa: PLC0415 - the guard is small, and imports nothing of the rest

        guard.WORKER = (sys.executable, "-m", "tests.support.cluster.role", "worker")
        sys.argv[1:] = []
        return guard.main()
    from scheduler.cli import roles  # noqa: PLC0415
    from scheduler.cli.processes import load  # noqa: PLC0415

    roles.SystemClock = MovedClock  # type: ignore[misc]
    loaded = load({})
    assert loaded is not None
    return roles.run_role(role, loaded.config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
