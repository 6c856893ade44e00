"""What Linux offers and Python has no binding for. Imports the standard library only: the guard uses it too.

Credentials are changed by raw system calls, because those act on the calling thread alone; glibc's wrappers would
change every thread of the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_CLOCK_BOOTTIME = 7
_TFD_TIMER_ABSTIME = 1

_CREDENTIAL_CALLS = {  # machine: setgroups, setresuid, setresgid
    "x86_64": (116, 117, 119),
    "aarch64": (159, 147, 149),
    "riscv64": (159, 147, 149),
}

_machine = os.uname().machine  # `platform` would be a tenth of a guard's memory

SUPPORTED = sys.platform == "linux" and _machine in _CREDENTIAL_CALLS
"""Whether pidfds, subreapers and per-thread credentials are here; elsewhere the worker is for development only."""

_Signals = ctypes.c_char * 128  # larger than any C library's

_libc = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter lock: these calls are shorter than letting it go
_SETGROUPS, _SETRESUID, _SETRESGID = _CREDENTIAL_CALLS.get(_machine, (0, 0, 0))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def become_subreaper() -> None:
    """Make orphaned descendants children of this process instead of init's."""
    _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def forbid_inspection() -> None:
    """Keep processes of the same user from reading this one's memory, environment and open files."""
    _checked(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def set_thread_groups(groups: tuple[int, ...]) -> None:
    """Set the calling thread's supplementary groups."""
    array = (ctypes.c_uint32 * len(groups))(*groups)
    _checked(_libc.syscall(_SETGROUPS, len(groups), array))


def set_thread_uid(real_and_effective: int, saved: int) -> None:
    """Set the calling thread's user ids."""
    _checked(_libc.syscall(_SETRESUID, real_and_effective, real_and_effective, saved))


def set_thread_gid(gid: int) -> None:
    """Set all of the calling thread's group ids."""
    _checked(_libc.syscall(_SETRESGID, gid, gid, gid))


def child_signals() -> int:
    """Return a descriptor that becomes readable when children of this process end; SIGCHLD must be blocked."""
    signals = _Signals()
    _libc.sigemptyset(signals)
    _libc.sigaddset(signals, int(signal.SIGCHLD))
    return _checked(_libc.signalfd(-1, signals, os.O_CLOEXEC | os.O_NONBLOCK))


class _Timer(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class BootTimer:
    """A file descriptor that becomes readable at a moment of CLOCK_BOOTTIME, a suspended machine notwithstanding."""

    def __init__(self) -> None:
        self.fd = _checked(_libc.timerfd_create(_CLOCK_BOOTTIME, os.O_CLOEXEC | os.O_NONBLOCK))

    def set(self, moment: float) -> None:
        """Become readable at `moment` (seconds since boot); zero or less: never."""
        moment = max(moment, 0.0)
        setting = _Timer(0, 0, int(moment), int(moment % 1 * 1e9))
        _checked(_libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, ctypes.byref(setting), None))
