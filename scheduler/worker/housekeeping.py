"""Files that nobody needs any more: what a worker that was killed has left, and what commands leave behind them.

A worker's directory bears a lock for as long as the worker lives, however that ends. So whoever can lock a directory
may remove it.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

_PREFIX = "dts-scratch-"
_AT_ONCE = 1000
"""Strays that are remembered: a command may leave any number of files."""


def make_directory(parent: str | None) -> tuple[Path, int]:
    """Make a directory of this process's own; return it and the descriptor that holds its lock."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = _locked(path)
        if lock is not None and path.exists():  # else somebody took it for abandoned before it was locked
            return path, lock
        if lock is not None:
            os.close(lock)


def remove_abandoned(parent: Path) -> None:
    """Remove the directories of workers that are no more, in the background: they may be large."""
    abandoned = [(path, lock) for path in parent.glob(f"{_PREFIX}*") if (lock := _locked(path)) is not None]
    if abandoned:
        _in_background("remove abandoned", lambda: _remove(abandoned))


class Strays:
    """Files in a directory that belong to no attempt by name, but may belong to one that runs.

    A stray was made by an attempt that ran before it was first seen. When all that ran then have ended, it goes.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._seen: dict[str, set[str]] = {}  # name → attempts that ran when it was first seen

    def tidy(self, live: Collection[str]) -> None:
        """Remove what can be nobody's. `live` are the names of the attempts that run; their files begin with these."""
        seen, self._seen = self._seen, {}
        for name in self._names(live):
            makers = seen.get(name, set(live)).intersection(live)
            if makers:
                self._seen[name] = makers
            else:
                discard(f"{self._directory}/{name}")

    def _names(self, live: Collection[str]) -> Iterator[str]:
        try:
            with os.scandir(self._directory) as entries:
                strays = (entry.name for entry in entries if entry.name.partition(".")[0] not in live)
                yield from list(itertools.islice(strays, _AT_ONCE))
        except OSError:
            return


def discard(path: str) -> None:
    """Remove a file, or, in the background, a directory in its place."""
    try:
        os.unlink(path)  # noqa: PTH108  # hot
    except IsADirectoryError:
        away = f"{path}~{os.urandom(8).hex()}"
        try:
            os.rename(path, away)  # noqa: PTH104
        except OSError:
            return
        _in_background("remove stray", lambda: shutil.rmtree(away, ignore_errors=True))
    except OSError:
        return


def _locked(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(fd).st_uid == os.geteuid():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
    except BlockingIOError:
        pass  # its worker lives
    os.close(fd)
    return None


def _in_background(name: str, remove: Callable[[], None]) -> None:
    """Remove something on a thread of its own.

    No service starts it, since nobody waits for it: a tree of any size may hold up neither the loop nor a drain. What
    it leaves when the process ends, the next worker finds abandoned.
    """
    threading.Thread(target=remove, name=name, daemon=True).start()


def _remove(abandoned: list[tuple[Path, int]]) -> None:
    for path, lock in abandoned:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)
