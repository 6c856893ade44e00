"""What a guard does to its worker and to the worker's tasks, by their lease. Imports next to nothing, as its caller."""

from __future__ import annotations

from enum import StrEnum


class Demand(StrEnum):
    """What is to be done to the tasks; `kill` ends the worker too."""

    NOTHING = "nothing"
    ASK = "ask"
    KILL = "kill"


AGAIN = 1.0
"""Seconds after which what is to be dead is looked at again."""


def demand(now: float, *, deadline: float, ask_at: float, asked: float, tree_empty: bool) -> tuple[Demand, float]:
    """Say what the lease demands at `now`, and when to look again (0: when woken).

    `deadline` is 0 while there is no lease; `asked` is the deadline for which tasks were already asked to end. A worker
    without tasks is let live past its deadline: it starts nothing before it has a lease again.
    """
    if deadline <= 0:
        return Demand.NOTHING, 0.0
    if now < ask_at:
        return Demand.NOTHING, ask_at
    if now < deadline:
        return (Demand.NOTHING if tree_empty or asked == deadline else Demand.ASK), deadline
    if tree_empty:
        return Demand.NOTHING, 0.0
    return Demand.KILL, now + AGAIN
