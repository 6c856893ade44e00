"""What Linux offers and Python has no binding for. Imports the standard library only: the guard uses it too.

Credentials are changed by raw system calls, because those act on the calling thread alone; glibc's wrappers would
change every thread of the process.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_CLOCK_BOOTTIME = 7
_CLONE_FS = 0x200
_TFD_TIMER_ABSTIME = 1

_CREDENTIAL_CALLS = {  # machine: setgroups, setresuid, setresgid
    "x86_64": (116, 117, 119),
    "aarch64": (159, 147, 149),
    "riscv64": (159, 147, 149),
}

SUPPORTED = sys.platform == "linux" and platform.machine() in _CREDENTIAL_CALLS
"""Whether pidfds, subreapers and per-thread credentials are here; elsewhere the worker is for development only."""

_PIDFD_OPEN = 434  # the same everywhere, as every system call since 5.1
_Pipe = ctypes.c_int * 2

_libc = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter lock: these calls are shorter than releasing it
_SETGROUPS, _SETRESUID, _SETRESGID = _CREDENTIAL_CALLS.get(platform.machine(), (0, 0, 0))


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


def unshare_directory() -> None:
    """Give the calling thread a working directory and umask of its own."""
    _checked(_libc.unshare(_CLONE_FS))


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


# Python's own calls for these let the lock go. On a busy worker the thread then queues for it again behind all others,
# six times for one command; the calls themselves take a microsecond.


def pipe() -> tuple[int, int]:
    """Return the reading and the writing end of a new pipe, both closed by executing."""
    ends = _Pipe()
    _checked(_libc.pipe2(ends, os.O_CLOEXEC))
    return ends[0], ends[1]


def close(fd: int) -> None:
    """Close a descriptor."""
    _checked(_libc.close(fd))


def open_process(pid: int) -> int:
    """Return a descriptor of a process, which becomes readable when it ends."""
    return _checked(_libc.syscall(_PIDFD_OPEN, pid, 0))


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
