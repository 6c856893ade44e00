"""What our processes do first: tie their life to their supervisor's and to Ctrl-C.

Standard library only, for small guards.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

VARIABLE = "DTS_SUPERVISOR"
"""Environment variable in which a supervisor gives its process id."""

_PR_SET_PDEATHSIG = 1


LEFT = 3
"""Exit code of a role that has left because the installation told it to: nobody starts it again by himself."""

INTERRUPTED = 130
"""Exit code of a process that was interrupted, or asked a second time to stop: 128 + SIGINT, as in shells."""


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


def end_when_interrupted() -> None:
    """Let Ctrl-C end this process at once, until it takes signals over.

    Python raises an exception instead, wherever it happens to be. In the callbacks of a fork or an import exceptions
    are dropped, and with them the wish to stop: one in forty was lost while `dts up` started.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
