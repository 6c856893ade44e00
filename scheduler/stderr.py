"""Standard error, for what is said to whom it may concern: what cannot be written is lost.

A reader that has gone, or a disk that is full, must not end a process that could go on, nor keep it from ending well.
Imports the standard library only: the guard uses it.
"""

from __future__ import annotations

import os

FD = 2


def say(text: str) -> None:
    """Write a line."""
    write(f"{text}\n".encode(errors="backslashreplace"))


def write(data: bytes | memoryview, fd: int = FD) -> None:
    """Write what can be written, now or never; what belongs elsewhere, to another `fd`."""
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(fd, left) :]
    except OSError:
        return
