"""Whether what runs share by a key makes sense: concurrency, rates."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from scheduler.domain import text
from scheduler.domain.complaints import Complaints
from scheduler.domain.task import TaskSpec

LONGEST_RATE = 7 * 86400.0
"""Seconds that a rate may be counted over: starts are counted in the history, which does not go back for ever."""


def check_gates(spec: TaskSpec, found: Complaints, changes: dict[str, Any]) -> None:
    """Complain about keys and rates; put the rate's normal form into `changes`."""
    if spec.concurrency is not None:
        found.text("concurrency/key", spec.concurrency.key, text.label)
    if spec.rate_limit is not None:
        found.text("rate_limit/key", spec.rate_limit.key, text.label)
        per = found.seconds("rate_limit/per", spec.rate_limit.per, positive=True)
        if per > LONGEST_RATE:
            found.add("rate_limit/per", "is longer than 7 days: write a shorter one, with a smaller n")
        changes["rate_limit"] = structs.replace(spec.rate_limit, per=per)
