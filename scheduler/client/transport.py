"""What both transports share: how httpx2 is set up, and how its answers and errors look to the core."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import httpx2

from scheduler import __version__
from scheduler.client.access import Access
from scheduler.client.exchange import Fault, Reply, Request

# Errors that come before the first byte of the request has left.
_UNSENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)


def options(access: Access, timeout: float) -> dict[str, Any]:
    """Return the arguments of `httpx2.Client` and `AsyncClient` for one server. Raises ValueError."""
    parts = urlsplit(access.server)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{access.server!r} is no server: write it as http://host:port")
    return {
        "base_url": access.server.rstrip("/"),
        "timeout": timeout,
        "headers": {"user-agent": f"dts-client/{__version__}", "accept": "application/json", **access.headers()},
        "verify": access.trust() if parts.scheme == "https" else True,
        "trust_env": not _is_loopback(parts.hostname),  # a proxy from the environment cannot reach our own machine
    }


def arguments(request: Request) -> dict[str, Any]:
    """Return the arguments of `build_request`."""
    extra = {} if request.timeout is None else {"timeout": request.timeout}
    return {
        "method": request.method,
        "url": request.target,
        "headers": request.headers,
        "content": request.body or None,
        **extra,
    }


def reply_of(response: httpx2.Response) -> Reply:
    """Return a response whose body has been read."""
    return Reply(response.status_code, response.headers, response.content)


def fault_of(error: httpx2.HTTPError) -> Fault:
    """Say what a transport error means for the request."""
    return Fault(sent=not isinstance(error, _UNSENT), detail=str(error) or type(error).__name__)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
