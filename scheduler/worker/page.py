"""One page of memory that guard, worker and spawners share, and a pipe by which the worker wakes the guard.

The worker writes, the others read: until when the lease holds (seconds of CLOCK_BOOTTIME, 0 before there is one),
whether no process of any task exists, which incarnation this is, and whether commands may still be started. The guard
writes for which deadline it has asked tasks to end. Every field is aligned and written at once.
Imports the standard library only.
"""

from __future__ import annotations

import mmap
import os
import struct

VARIABLE = "DTS_GUARD"
"""Environment variable of the worker: `<memory fd>,<wake fd>,<pid of the guard>`."""

_SIZE = mmap.PAGESIZE
_DEADLINE = struct.Struct("=d")
_FLAG = struct.Struct("=Q")
_DEADLINE_AT, _ASK_AT, _EMPTY_AT, _INCARNATION_AT, _ASKED_AT, _FORBIDDEN_AT = 0, 8, 16, 24, 40, 48


class LeasePage:
    """The shared page; `memory_fd` is its memory, for others to map."""

    def __init__(self, memory_fd: int, wake_fd: int | None = None) -> None:
        self.memory_fd = memory_fd
        self._memory = mmap.mmap(memory_fd, _SIZE)
        self._wake_fd = wake_fd

    @classmethod
    def new(cls) -> LeasePage:
        """Return a new page, as a guard makes it, and a worker without one (tests, development)."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("dts-lease", os.MFD_CLOEXEC)
        else:
            import tempfile  # noqa: PLC0415  # a third of a guard's memory, which has no need of it

            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, _SIZE)
        page = cls(fd)
        page.tree_empty = True
        return page

    @classmethod
    def mapped(cls, memory_fd: int) -> LeasePage:
        """Return the page whose memory this process was given; commands do not get it."""
        os.set_inheritable(memory_fd, False)
        return cls(memory_fd)

    @classmethod
    def inherited(cls, value: str) -> LeasePage:
        """Return the page that `DTS_GUARD` names; its descriptors are not passed on to tasks."""
        memory_fd, wake_fd, _ = (int(number) for number in value.split(","))
        os.set_inheritable(memory_fd, False)
        os.set_inheritable(wake_fd, False)
        os.set_blocking(wake_fd, False)
        return cls(memory_fd, wake_fd)

    @property
    def deadline(self) -> float:
        """The moment, in seconds of CLOCK_BOOTTIME, by which no process may be left unless the lease is renewed."""
        moment: float = _DEADLINE.unpack_from(self._memory, _DEADLINE_AT)[0]
        return moment

    @property
    def ask_at(self) -> float:
        """The moment at which tasks are asked to end."""
        moment: float = _DEADLINE.unpack_from(self._memory, _ASK_AT)[0]
        return moment

    def hold_until(self, deadline: float, *, ask_at: float) -> None:
        """Move the deadline; 0 for no lease."""
        _DEADLINE.pack_into(self._memory, _ASK_AT, ask_at)
        _DEADLINE.pack_into(self._memory, _DEADLINE_AT, deadline)

    @property
    def asked(self) -> float:
        """The deadline for which the guard has asked tasks to end, since the worker did not; 0 before it had to."""
        deadline: float = _DEADLINE.unpack_from(self._memory, _ASKED_AT)[0]
        return deadline

    @asked.setter
    def asked(self, deadline: float) -> None:
        _DEADLINE.pack_into(self._memory, _ASKED_AT, deadline)

    @property
    def tree_empty(self) -> bool:
        """Whether no process of any task exists; cleared before the deadline is looked at and a task is spawned."""
        return bool(_FLAG.unpack_from(self._memory, _EMPTY_AT)[0])

    @tree_empty.setter
    def tree_empty(self, empty: bool) -> None:
        _FLAG.pack_into(self._memory, _EMPTY_AT, empty)

    @property
    def forbidden(self) -> bool:
        """Whether nothing is started any more, whatever the lease says."""
        return bool(_FLAG.unpack_from(self._memory, _FORBIDDEN_AT)[0])

    @forbidden.setter
    def forbidden(self, forbidden: bool) -> None:
        _FLAG.pack_into(self._memory, _FORBIDDEN_AT, forbidden)

    @property
    def incarnation(self) -> bytes | None:
        """The worker's id (16 bytes), None before it has registered."""
        value = self._memory[_INCARNATION_AT : _INCARNATION_AT + 16]
        return value if any(value) else None

    @incarnation.setter
    def incarnation(self, value: bytes | None) -> None:
        self._memory[_INCARNATION_AT : _INCARNATION_AT + 16] = value or bytes(16)

    def wake_guard(self) -> None:
        """Make the guard look at the page now: a lease has begun, or ended early."""
        if self._wake_fd is not None:
            try:
                os.write(self._wake_fd, b"!")
            except BlockingIOError:  # it has not even read the last one
                return
            except BrokenPipeError:  # the guard is gone, which the worker learns by its pidfd
                return
