"""Starting processes of our own: as fresh ones, or as copies of this one. Imports next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from scheduler import lifeline

# Our children run the very code that we run, not what happens to bear its name in the current directory.
_SAME_CODE = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(Path(lifeline.__file__).parent.parent)}


class Launched(msgspec.Struct, frozen=True):
    """A process just started; `popen` for those that are not our forks."""

    pid: int
    popen: subprocess.Popen[bytes] | None = None


def execute(command: str) -> Launched:
    """Start `dts COMMAND` in a session of its own; what it prints goes to stderr."""
    popen = subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", "scheduler", command],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        env={**os.environ, **_SAME_CODE, lifeline.VARIABLE: str(os.getpid())},
        start_new_session=True,
    )
    return Launched(popen.pid, popen)


def fork(run: Callable[[], int], before: Callable[[], None]) -> Launched:
    """Run `run` in a copy of this process, in a session of its own: it need not import anything again.

    Only before any thread or event loop exists. `before` gives up what belongs to the parent alone.
    """
    supervisor = os.getpid()
    pid = os.fork()
    if pid:
        return Launched(pid)
    code = 1
    try:
        os.setsid()
        before()
        os.environ[lifeline.VARIABLE] = str(supervisor)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(2, 1)
        os.close(null)
        code = run()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - nothing may get back into the parent's code
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            sys.stderr.flush()
        finally:
            os._exit(code)
    return Launched(pid)
