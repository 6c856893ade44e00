"""The socket, bound before anything else happens, and hypercorn around the application."""

from __future__ import annotations

import logging
import socket
from functools import partial

import anyio
from hypercorn.asyncio import serve as serve_asgi
from hypercorn.typing import ASGIFramework

from scheduler.api.door import is_loopback
from scheduler.api.settings import ApiSettings
from scheduler.api.tls import Certificate, TlsConfig

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


async def serve_http(
    app: ASGIFramework,
    listener: socket.socket,
    settings: ApiSettings,
    stop: anyio.Event,
    certificate: Certificate | None = None,
) -> None:
    """Serve until `stop` is set; then finish requests under way for at most `drain_timeout` seconds."""
    config = TlsConfig(certificate)
    config.bind = [f"fd://{listener.detach()}"]
    config.backlog = _BACKLOG
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn")
    config.include_server_header = False
    config.keep_alive_timeout = settings.keep_alive
    config.keep_alive_max_requests = 1 << 31
    config.graceful_timeout = settings.drain_timeout
    # In a task of its own: hypercorn's task group leaves the task that it ran in marked as being cancelled, and then
    # nobody could leave a cancel scope quietly any more.
    async with anyio.create_task_group() as group:
        group.start_soon(partial(serve_asgi, app, config, shutdown_trigger=stop.wait), name="hypercorn")
