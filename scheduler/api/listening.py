"""The socket, bound before anything else happens, and hypercorn around the application."""

from __future__ import annotations

import logging
import socket
from typing import Any
from weakref import WeakSet

import anyio
from hypercorn.asyncio import serve as serve_asgi
from hypercorn.config import Sockets
from hypercorn.typing import ASGIFramework

from scheduler.api.door import is_loopback
from scheduler.api.settings import ApiSettings
from scheduler.api.tls import Certificate, TlsConfig
from scheduler.service import sleep

_BACKLOG = 1024


class NotLoopback(ValueError):
    """Binding to this address would let everybody on the network run commands."""


def bind(host: str, port: int, *, development: bool) -> socket.socket:
    """Return a listening socket. Raises NotLoopback in development mode, or OSError if the address is taken."""
    name = host.removeprefix("[").removesuffix("]")
    if development and not is_loopback(name):
        raise NotLoopback(
            f"refusing to listen on {host!r}: there is no authentication in development mode, and whoever reaches this"
            " address could run commands; use 127.0.0.1 or ::1"
        )
    family, kind, protocol, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
    if development and not is_loopback(str(address[0])):
        raise NotLoopback(f"refusing to listen on {host!r} in development mode: it resolves to {address[0]}")
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class _Listener(socket.socket):
    """A listening socket that knows the connections it has accepted."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(fileno=listener.detach())
        self._accepted: WeakSet[socket.socket] = WeakSet()

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        connection, address = super().accept()
        self._accepted.add(connection)
        return connection, address

    def cut(self) -> None:
        """End what is left of its connections, whatever has still to be read from them."""
        for connection in list(self._accepted):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has ended by itself
                continue


class _Config(TlsConfig):
    """Hypercorn's configuration, for one socket."""

    def __init__(self, listener: _Listener, certificate: Certificate | None) -> None:
        super().__init__(certificate)
        self._listener = listener

    def create_sockets(self) -> Sockets:
        """Return the socket."""
        return Sockets([self._listener], [], []) if self.ssl_enabled else Sockets([], [self._listener], [])


async def serve_http(
    app: ASGIFramework,
    listener: socket.socket,
    settings: ApiSettings,
    stop: anyio.Event,
    certificate: Certificate | None = None,
) -> None:
    """Serve until `stop` is set; then finish requests under way for at most `drain_timeout` seconds."""
    accepting = _Listener(listener)
    config = _Config(accepting, certificate)
    config.backlog = _BACKLOG
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn")
    config.include_server_header = False
    config.keep_alive_timeout = settings.keep_alive
    config.keep_alive_max_requests = 1 << 31
    config.graceful_timeout = settings.drain_timeout

    async def serve() -> None:
        await serve_asgi(app, config, shutdown_trigger=stop.wait)
        group.cancel_scope.cancel()

    # In a task of its own: hypercorn's task group leaves the task that it ran in marked as being cancelled, and then
    # nobody could leave a cancel scope quietly any more.
    async with anyio.create_task_group() as group:
        group.start_soon(serve, name="hypercorn")
        await stop.wait()
        await sleep(settings.drain_timeout)
        # Hypercorn gives up on its requests, but waits until their clients have read what was written for them.
        accepting.cut()
