"""What must hold in every snapshot of a live system, checked by SQL: the promises, as far as PostgreSQL can see them.

All checks read one snapshot, in one read-only transaction. Each looks at live rows and at the newest part of history,
so a check costs the same however much there is; what the system mends by itself counts only after a while.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from scheduler.domain.loss import BUDGET
from scheduler.store.database import Database, Executor

NEWEST: Final = 10_000
"""How much of the history a check looks at: its newest rows, of each kind."""
GRACE: Final = 60.0
"""Seconds that the system may take to mend what a fault has left."""
SHOWN: Final = 10
"""How many violations of one invariant are reported."""
_TIMEOUT: Final = 20.0
_LARGEST_OUTPUTS: Final = 512 * 1024  # bytes; 256 KiB as the task wrote them, before JSON is laid out as text
_LARGEST_TAIL: Final = 16 * 1024


class Invariant(msgspec.Struct, frozen=True):
    """One way in which a promise could be broken. `promise` is its number, `statement` reads what contradicts it."""

    promise: int
    statement: str
    says: str
    parameters: Sequence[object] = ()

    @property
    def name(self) -> str:
        """What to call it."""
        return self.statement.removeprefix("invariant_")


class Violation(msgspec.Struct, frozen=True):
    """One row that contradicts an invariant: what it is (an id, mostly), and why."""

    subject: str
    detail: str


class Finding(msgspec.Struct, frozen=True):
    """What one check has found: nothing, if all is well. Not more than `SHOWN` violations."""

    promise: int
    name: str
    says: str
    violations: Sequence[Violation]


INVARIANTS: Final = (
    Invariant(1, "invariant_task_without_run", "every accepted task has a run"),
    Invariant(1, "invariant_run_without_task", "every live run has its task"),
    Invariant(1, "invariant_lane_unknown", "every waiting run stands in a lane that is listed"),
    Invariant(2, "invariant_attempt_unrecorded", "every attempt that has ended is recorded, and no other"),
    Invariant(2, "invariant_two_outcomes", "a run is completed by exactly one attempt"),
    Invariant(2, "invariant_fences_out_of_order", "the fences of a run's attempts grow"),
    Invariant(2, "invariant_fence_reused", "no fence is given out twice"),
    Invariant(2, "invariant_fence_of_the_future", "no fence is beyond the sequence"),
    Invariant(3, "invariant_fire_run_twice", "a planned fire has one run"),
    Invariant(3, "invariant_run_without_fire", "a scheduled run is the run of its fire"),
    Invariant(3, "invariant_fire_without_run", "a fire that made a run names one that exists"),
    Invariant(4, "invariant_epoch_of_the_future", "nothing is written under a term that has not begun"),
    Invariant(4, "invariant_deposed_leader_wrote", "nothing is written under a term that has ended"),
    Invariant(5, "invariant_attempts_overlap", "an attempt begins after the one before has ended"),
    Invariant(5, "invariant_runs_of_the_dead", "what executes has a worker that lives"),
    Invariant(6, "invariant_lease_of_the_dead", "workers have a lease exactly as long as they live"),
    Invariant(7, "invariant_budget_overcharged", "nothing is charged that no attempt records"),
    Invariant(7, "invariant_budget_exhausted", "a run whose losses are used up is a dead letter", (BUDGET,)),
    Invariant(8, "invariant_output_after_the_end", "nothing is printed after the end"),
    Invariant(9, "invariant_fire_overdue", "every fire is decided when it comes"),
    Invariant(9, "invariant_cursor_behind", "a cursor stands between the last fire and the next"),
    Invariant(9, "invariant_fire_unexplained", "a fire made a run exactly if it says so"),
    Invariant(10, "invariant_outside_partitions", "all history is in a week, and goes with it"),
    Invariant(
        10, "invariant_outputs_too_large", "what a run keeps is bounded", (_LARGEST_OUTPUTS, _LARGEST_TAIL)
    ),
    Invariant(11, "invariant_worker_not_heard", "a silent worker is reaped"),
    Invariant(11, "invariant_waits_for_the_ended", "nobody waits for what has ended"),
    Invariant(11, "invariant_not_promoted", "what is due is queued"),
    Invariant(11, "invariant_not_claimed", "what is queued is claimed where a worker is idle"),
    Invariant(12, "invariant_dead_letter_torn", "a dead letter and its run say the same"),
    Invariant(12, "invariant_end_torn", "an ended run and its last attempt say the same"),
)  # fmt: skip


async def check(database: Database, *, newest: int = NEWEST) -> list[Finding]:
    """Check everything in one snapshot; nothing is changed. Raises StoreUnavailable when the database is away.

    `newest`: how many rows of history are looked at.
    """
    async with _snapshot(database) as executor:
        return [
            Finding(
                invariant.promise,
                invariant.name,
                invariant.says,
                [
                    Violation(row["subject"], row["detail"])
                    for row in await executor.fetch(invariant.statement, newest, GRACE, SHOWN, *invariant.parameters)
                ],
            )
            for invariant in INVARIANTS
        ]


@asynccontextmanager
async def _snapshot(database: Database) -> AsyncIterator[Executor]:
    async with database.session() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(f"SET LOCAL statement_timeout = {int(_TIMEOUT * 1000)}")
        yield Executor(connection, database.pool)
