"""What the server says of itself, and whether it may be used: a version with functions, no eviction, no replica."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from scheduler.broker.errors import BrokerUnavailable, BrokerUnfit

QUESTIONS: tuple[tuple[str, ...], ...] = (("INFO", "server"), ("INFO", "memory"), ("INFO", "replication"))
"""Commands whose replies `ServerInfo.parse` takes."""

_OLDEST_REDIS = (7, 0)
_OLDEST_VALKEY = (7, 2)


class ServerInfo(msgspec.Struct, frozen=True):
    """`run_id` changes with every start of the server. `product` is Redis or Valkey."""

    product: str
    version: tuple[int, ...]
    run_id: str
    eviction: str
    role: str = "master"

    @classmethod
    def parse(cls, replies: Sequence[Any]) -> ServerInfo:
        """Read the replies to `QUESTIONS`. Raises BrokerUnavailable if they are no such thing."""
        facts: dict[str, str] = {}
        for reply in replies:
            if not isinstance(reply, bytes):
                raise BrokerUnavailable(f"Redis does not answer INFO: {reply}")
            lines = reply.decode("utf-8", "replace").splitlines()
            facts |= {key: value for key, _, value in (line.partition(":") for line in lines) if value}
        product = "Valkey" if "valkey_version" in facts else "Redis"
        version = facts.get("valkey_version") or facts.get("redis_version", "0")
        numbers = tuple(int(part) if part.isdecimal() else 0 for part in version.split("."))
        eviction, role = facts.get("maxmemory_policy", "unknown"), facts.get("role", "master")
        return cls(product, numbers, facts.get("run_id", ""), eviction, role)

    def check(self) -> None:
        """Raise BrokerUnfit, naming everything that has to change, if the server must not be used."""
        problems = []
        oldest = _OLDEST_VALKEY if self.product == "Valkey" else _OLDEST_REDIS
        if self.version < oldest:
            problems.append(f"{self.product} {_dotted(self.version)} is older than {_dotted(oldest)}")
        if self.eviction != "noeviction":
            problems.append(f"maxmemory-policy is {self.eviction}, but must be noeviction")
        if self.role != "master":
            problems.append("it is a replica, which takes no writes")
        if problems:
            raise BrokerUnfit("; ".join(problems))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
