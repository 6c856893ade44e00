"""The way from a process to a server, through a relay of ours that can stop relaying.

A cut way behaves like a network that loses every packet: nothing is refused, nothing is closed, bytes wait where they
are until the way is mended, as TCP would send them again.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.abc
from anyio.from_thread import BlockingPortal

Direction = Literal["both", "to server", "from server"]
_CHUNK = 64 * 1024


class Link:
    """Relays from `listener` to the unix socket `target`."""

    def __init__(self, name: str, portal: BlockingPortal, listener: socket.socket, target: Path) -> None:
        self.name = name
        self._portal = portal
        self._listener = listener
        self._target = target
        self._open: dict[str, anyio.Event] = {}

    def cut(self, direction: Direction = "both") -> None:
        for each in ("to server", "from server"):
            if direction in ("both", each):
                self._portal.call(self._set, each, False)

    def mend(self) -> None:
        for each in ("to server", "from server"):
            self._portal.call(self._set, each, True)

    def lead_to(self, target: Path) -> None:
        """Relay new connections to another server, as a name does that has been given to another address."""
        self._target = target

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        for each in ("to server", "from server"):
            self._set(each, True)
        async with anyio.create_task_group() as group:
            self._listener.setblocking(False)
            task_status.started()
            while True:
                await anyio.wait_readable(self._listener)
                with contextlib.suppress(BlockingIOError):
                    client, _ = self._listener.accept()
                    group.start_soon(self._relay, client)

    def _set(self, direction: str, is_open: bool) -> None:
        if is_open:
            self._open.setdefault(direction, anyio.Event()).set()
        elif self._open[direction].is_set():
            self._open[direction] = anyio.Event()

    async def _relay(self, client: socket.socket) -> None:
        client.setblocking(False)
        with client:
            await self._open["to server"].wait()
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            with server:
                try:
                    server.connect(str(self._target))
                except OSError:  # nobody listens there: closing tells the client
                    return
                async with anyio.create_task_group() as group:
                    group.start_soon(self._pump, client, server, "to server", group)
                    group.start_soon(self._pump, server, client, "from server", group)

    async def _pump(self, source: Any, sink: Any, direction: str, group: anyio.abc.TaskGroup) -> None:
        with contextlib.suppress(OSError):
            while True:
                try:
                    data = source.recv(_CHUNK)
                except BlockingIOError:
                    await anyio.wait_readable(source)
                    continue
                while not self._open[direction].is_set():
                    await self._open[direction].wait()
                if not data:
                    break
                await _send(sink, data)
        group.cancel_scope.cancel()


async def _send(sink: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[sink.send(view) :]
        except BlockingIOError:
            await anyio.wait_writable(sink)


@contextmanager
def relayed(name: str, portal: BlockingPortal, listener: socket.socket, target: Path) -> Iterator[Link]:
    """Run a link for as long as the block lasts."""
    link = Link(name, portal, listener, target)
    with listener:
        future, _ = portal.start_task(link.run)
        try:
            yield link
        finally:
            future.cancel()
            with contextlib.suppress(BaseException):
                future.result(5)


def unix_listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(128)
    path.chmod(0o700)
    return listener


def tcp_listener(address: str) -> socket.socket:
    return socket.create_server((address, 0), backlog=128)
