"""What becomes of runs whose worker died.

Losing a worker says little about the command: it has a budget apart from the task's retries. When several runs die
together, one of them may have taken the others along; nobody knows which, so none is charged and all become suspects.
Suspects then run one per worker, and whoever is lost alone, or as a suspect, is charged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

import msgspec

BUDGET = 3
"""Charged losses after which a run is dead-lettered."""

OnLost = Literal["retry", "fail", "dead_letter"]


class Lost(msgspec.Struct, frozen=True, gc=False):
    """An executing run of a worker that has died. `on_lost`: what its task, with its retry rules, wants done then."""

    run_id: UUID
    losses: int
    suspect: bool
    cancel_requested: bool
    on_lost: OnLost


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What the run becomes. `retry_in` is in seconds and only counts for `pending`."""

    run_id: UUID
    state: Literal["pending", "cancelled", "failed", "dead_letter"]
    reason: str
    losses: int
    suspect: bool
    retry_in: float = 0.0


def judge_losses(lost: Sequence[Lost]) -> list[Verdict]:
    """Return a verdict for each of the runs that died with one worker, in order."""
    alone = len(lost) == 1
    return [_judge(run, charged=alone or run.suspect, together=not alone) for run in lost]


def _judge(run: Lost, *, charged: bool, together: bool) -> Verdict:
    losses = run.losses + charged
    suspect = run.suspect or together
    if run.cancel_requested:
        return Verdict(run.run_id, "cancelled", "cancelled", losses, suspect)
    if run.on_lost == "fail":
        return Verdict(run.run_id, "failed", "lost", losses, suspect)
    if run.on_lost == "dead_letter" or losses >= BUDGET:
        return Verdict(run.run_id, "dead_letter", "lost", losses, suspect)
    # Each charged loss waits longer: whatever the run does to its host should not meet the next one at once.
    return Verdict(run.run_id, "pending", "lost", losses, suspect, retry_in=0.5 * 4.0 ** (losses - 1) if charged else 0)
