"""How a server says that it is."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from scheduler.wire.fleet import Leader


class Liveness(msgspec.Struct, kw_only=True, frozen=True):
    """The process answers."""

    status: Literal["ok"]


class Readiness(msgspec.Struct, kw_only=True, frozen=True):
    """`status` is `ok` when a POST would be accepted; `leader` and `workers` say whether it would also be run."""

    status: Literal["ok", "starting", "unavailable", "stopping"]
    database: bool
    schema: bool
    leader: bool
    workers: int


class Dependency(msgspec.Struct, kw_only=True, frozen=True):
    """One server that we depend on: how long a question took, or what was wrong."""

    ok: bool
    seconds: float | None
    error: str | None


class Part(msgspec.Struct, kw_only=True, frozen=True):
    """One part of a process."""

    ok: bool
    detail: str
    since: datetime
    failures: int


class DeepHealth(msgspec.Struct, kw_only=True, frozen=True):
    """Everything that the answering process knows of the system's health.

    `parts` are its own, `leader_parts` those of the leader that fail, as it said some seconds ago.
    """

    status: Literal["ok", "degraded", "unavailable"]
    now: datetime
    version: str
    dependencies: dict[str, Dependency]
    leader: Leader | None
    workers: int | None
    parts: dict[str, Part]
    leader_parts: dict[str, Part] = {}
