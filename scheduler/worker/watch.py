"""Waiting for many descriptors at the price of one in the event loop.

asyncio's readers cost a handle and a heap of bookkeeping each. A descriptor here costs one epoll registration; the
event loop knows only the epoll's own descriptor and is called once for a whole batch of events.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Protocol

_BATCH = 128


class Watcher(Protocol):
    """Calls back when descriptors become readable. `after` is called once after each batch of callbacks."""

    def add(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `fd` is readable or hung up."""
        ...

    def remove(self, fd: int) -> None:
        """Forget `fd`; must precede closing it, or events of a dead number may arrive."""
        ...

    def close(self) -> None:
        """Stop calling back."""
        ...


class EpollWatcher:
    """For Linux."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after: Callable[[], None]) -> None:
        self._loop = loop
        self._after = after
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._drain)

    def add(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `fd` is readable or hung up."""
        self._epoll.register(fd, select.EPOLLIN)
        self._callbacks[fd] = callback

    def remove(self, fd: int) -> None:
        """Forget `fd`."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Stop calling back."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _drain(self) -> None:
        for fd, _ in self._epoll.poll(0, _BATCH):
            callback = self._callbacks.get(fd)
            if callback is not None:  # else: removed by an earlier callback of this batch
                callback()
        self._after()


class LoopWatcher:
    """For where there is no epoll: each descriptor is a reader of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after: Callable[[], None]) -> None:
        self._loop = loop
        self._after = after
        self._fds: set[int] = set()

    def add(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `fd` is readable or hung up."""
        self._loop.add_reader(fd, self._call, callback)
        self._fds.add(fd)

    def remove(self, fd: int) -> None:
        """Forget `fd`."""
        if fd in self._fds:
            self._fds.discard(fd)
            self._loop.remove_reader(fd)

    def close(self) -> None:
        """Stop calling back."""
        for fd in list(self._fds):
            self.remove(fd)

    def _call(self, callback: Callable[[], None]) -> None:
        callback()
        self._after()
