"""One page of memory that guard and worker share, and a pipe by which the worker wakes the guard.

The worker writes, the guard reads: until when the lease holds (seconds of CLOCK_BOOTTIME, 0 before there is one),
whether no process of any task exists, and which incarnation this is. The guard writes for which deadline it has asked
tasks to end. Every field is aligned and written at once.
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
_EMPTY = struct.Struct("=Q")
_DEADLINE_AT, _ASK_AT, _EMPTY_AT, _INCARNATION_AT, _ASKED_AT = 0, 8, 16, 24, 40


class LeasePage:
    """The shared page. A worker without a guard (tests, development) has a private one."""

    def __init__(self, memory: mmap.mmap, wake_fd: int | None = None) -> None:
        self._memory = memory
        self._wake_fd = wake_fd

    @classmethod
    def private(cls) -> LeasePage:
        """Return a page that nobody else sees."""
        page = cls(mmap.mmap(-1, _SIZE))
        page.tree_empty = True
        return page

    @classmethod
    def shared(cls) -> tuple[LeasePage, int]:
        """Return a new page and the descriptor of its memory, to be inherited."""
        fd = os.memfd_create("dts-lease", os.MFD_CLOEXEC)
        os.ftruncate(fd, _SIZE)
        page = cls(mmap.mmap(fd, _SIZE))
        page.tree_empty = True
        return page, fd

    @classmethod
    def inherited(cls, value: str) -> LeasePage:
        """Return the page that `DTS_GUARD` names; its descriptors are not passed on to tasks."""
        memory_fd, wake_fd, _ = (int(number) for number in value.split(","))
        memory = mmap.mmap(memory_fd, _SIZE)
        os.close(memory_fd)
        os.set_inheritable(wake_fd, False)
        os.set_blocking(wake_fd, False)
        return cls(memory, wake_fd)

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
        return bool(_EMPTY.unpack_from(self._memory, _EMPTY_AT)[0])

    @tree_empty.setter
    def tree_empty(self, empty: bool) -> None:
        _EMPTY.pack_into(self._memory, _EMPTY_AT, empty)

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
