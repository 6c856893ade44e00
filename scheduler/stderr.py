"""Standard error, for what is said to whom it may concern: what cannot be written is lost.

A reader that has gone, one that is there and does not read, or a disk that is full must not end a process that could go
on, nor stop it, nor keep it from ending well. The descriptor stays as it is: others write to it, too, and count on its
blocking. So it is asked first: a pipe that says that it can be written takes so many bytes at once without waiting.
Imports the standard library only: the guard uses it.
"""

from __future__ import annotations

import os
import select
from typing import Final

FD = 2

_PATIENCE_MS: Final = 10  # a reader that does read makes room within that, so a burst loses nothing


def say(text: str) -> None:
    """Write a line."""
    write(f"{text}\n".encode(errors="backslashreplace"))


def write(data: bytes | memoryview, fd: int = FD) -> None:
    """Write a line, or as much of it as is taken now; what belongs elsewhere, to another `fd`."""
    _outlets.setdefault(fd, _Outlet(fd)).write(data)


class _Outlet:
    """A descriptor, and what is known of whoever reads it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._stuck = False
        self._cut = False

    def write(self, data: bytes | memoryview) -> None:
        # What comes after half a line begins a new one, or neither could be read.
        left = memoryview(b"\n" + data) if self._cut else memoryview(data)
        try:
            while left and self._takes_more():
                written = os.write(self._fd, left[: select.PIPE_BUF])
                self._cut = left[written - 1] != ord("\n")
                left = left[written:]
        except OSError:
            return

    def _takes_more(self) -> bool:
        """Wait a moment for whoever reads, but not again before they have read."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        self._stuck = not poll.poll(0 if self._stuck else _PATIENCE_MS)
        return not self._stuck


_outlets: Final[dict[int, _Outlet]] = {}
