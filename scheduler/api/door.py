"""Who may talk to a server in development mode: this machine, by a loopback name, from no foreign web page.

A web page cannot read another origin's answers, but by DNS rebinding it may become the same origin under its own name:
hence the Host header must be a loopback name. A page of another origin may still send simple requests: hence an Origin,
where there is one, must be a loopback name too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from scheduler.api.problems import Refusal

_REMEMBERED = 256


def is_loopback(host: str) -> bool:
    """Say whether a host name or address (IPv6 with or without brackets) can only be this machine."""
    name = host.removeprefix("[").removesuffix("]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _host_of(authority: str) -> str:
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    return authority.partition(":")[0]


class Door:
    """Checks Host and Origin of each request, and remembers the values that passed."""

    def __init__(self) -> None:
        self._good_hosts: set[bytes] = set()
        self._good_origins: set[bytes] = set()

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise a 403 Refusal unless Host, and Origin where present, are loopback names; 400 without a Host."""
        host = headers.get(b"host")
        if host not in self._good_hosts:
            self._examine_host(host)
        origin = headers.get(b"origin")
        if origin is not None and origin not in self._good_origins:
            self._examine_origin(origin)

    def _examine_host(self, host: bytes | None) -> None:
        if not host:
            raise Refusal(400, "malformed", "a request needs a Host header")
        if not is_loopback(_host_of(host.decode("latin-1"))):
            raise Refusal(
                403, "forbidden-host", "a server in development mode answers to localhost or 127.0.0.1 as the host"
            )
        self._remember(self._good_hosts, host)

    def _examine_origin(self, origin: bytes) -> None:
        scheme, separator, authority = origin.decode("latin-1").partition("://")
        if not separator or scheme not in ("http", "https") or not is_loopback(_host_of(authority)):
            raise Refusal(403, "forbidden-host", "web pages of other origins may not use this server")
        self._remember(self._good_origins, origin)

    @staticmethod
    def _remember(good: set[bytes], value: bytes) -> None:
        if len(good) < _REMEMBERED:
            good.add(value)
