"""What a child of `dts up` does first: tie its life to its supervisor's. Standard library only, for small guards."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

VARIABLE = "DTS_SUPERVISOR"
"""Environment variable in which a supervisor gives its process id."""

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel send us SIGTERM when the supervisor that started us ends, however it ends (Linux).

    Without `DTS_SUPERVISOR` nothing happens. Exits if the supervisor is gone already.
    """
    supervisor = os.environ.pop(VARIABLE, None)
    if supervisor is None:
        return
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - nobody else needs it

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != int(supervisor):
        sys.exit(0)


def call_ourselves(name: str) -> None:
    """Show `name` in process lists (Linux; the first 15 characters)."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as file:  # noqa: PTH123 - no pathlib: it is small
        file.write(name)
