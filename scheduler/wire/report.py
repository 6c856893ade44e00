"""What the leader says of itself, for every API to show."""

from __future__ import annotations

import msgspec

from scheduler.wire.health import Part


class QueueDepth(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """How many runs stand `queued`, how many are `due` and wait behind no gate, and for how long the oldest has.

    Each number is counted up to some thousands for each lane: beyond that it means "at least".
    """

    namespace: str
    queue: str
    queued: int
    due: int
    oldest_due_seconds: float


class LeaderReport(msgspec.Struct, kw_only=True, frozen=True):
    """The leader's parts that fail, by name, and the deepest queues. Of the term `epoch`, and of no other."""

    epoch: int
    failing: dict[str, Part]
    queues: list[QueueDepth]
