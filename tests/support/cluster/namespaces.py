"""A network namespace for one process: its packets to each server go over a pair of interfaces of their own.

Losing packets for real needs root and `ip`; `permitted` says whether this machine allows it.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from tests.support.cluster.links import Direction

_numbers = itertools.count(os.getpid() * 16)
_NOBODY = "02:00:00:00:00:01"  # a hardware address that nobody has: what is sent there is lost


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True, timeout=10)


@functools.cache
def permitted() -> bool:
    """Say whether namespaces can be made here."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nsenter"):
        return False
    name = f"dts-try-{os.getpid()}"
    try:
        _ip("netns", "add", name)
        _ip("link", "add", "name", f"dtst{os.getpid() % 100000}", "type", "veth", "peer", "name", "p0", "netns", name)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return False
    finally:
        _ip("netns", "del", name, check=False)
    return True


class Wire(msgspec.Struct, frozen=True):
    """One pair of interfaces: `outer` with `here` on our side, `inner` with `there` inside `namespace`."""

    namespace: str
    outer: str
    inner: str
    here: str
    there: str

    def cut(self, direction: Direction = "both") -> None:
        """Lose every packet, or those of one direction."""
        if direction == "both":
            _ip("link", "set", self.outer, "down")
        elif direction == "to server":
            self._inside("neigh", "replace", self.here, "lladdr", _NOBODY, "dev", self.inner, "nud", "permanent")
        else:
            _ip("neigh", "replace", self.there, "lladdr", _NOBODY, "dev", self.outer, "nud", "permanent")

    def mend(self) -> None:
        """Lose nothing any more."""
        _ip("link", "set", self.outer, "up")
        self._inside("neigh", "del", self.here, "dev", self.inner, check=False)
        _ip("neigh", "del", self.there, "dev", self.outer, check=False)

    def _inside(self, *words: str, check: bool = True) -> None:
        _ip("-n", self.namespace, *words, check=check)


class Namespace(msgspec.Struct, frozen=True):
    """A namespace with one wire for each server."""

    name: str
    wires: dict[str, Wire]

    @property
    def prefix(self) -> list[str]:
        """Words before a command that is to run inside."""
        return ["nsenter", f"--net=/run/netns/{self.name}", "--"]


@contextmanager
def namespace(*servers: str) -> Iterator[Namespace]:
    """Make a namespace with a wire for each of the named servers."""
    number = next(_numbers) % 60000
    name = f"dts-{number}"
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        wires = {}
        for index, server in enumerate(servers):
            net = f"10.{200 + index}.{number // 250}.{number % 250}"
            # Two addresses that are each other's only neighbour.
            here, there = net, f"10.{210 + index}.{number // 250}.{number % 250}"
            wire = Wire(name, f"dts{number}o{index}", f"dts{number}i{index}", here, there)
            _ip("link", "add", "name", wire.outer, "type", "veth", "peer", "name", wire.inner, "netns", name)
            _ip("addr", "add", here, "peer", there, "dev", wire.outer)
            _ip("link", "set", wire.outer, "up")
            _ip("-n", name, "addr", "add", there, "peer", here, "dev", wire.inner)
            _ip("-n", name, "link", "set", wire.inner, "up")
            wires[server] = wire
        yield Namespace(name, wires)
    finally:
        _ip("netns", "del", name, check=False)
