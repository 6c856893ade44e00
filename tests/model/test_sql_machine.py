"""The statements of `scheduler/store/sql` on a real PostgreSQL make the same machine as the model that is searched.

Every event meets a run in every state, under a fresh and under a stale fence, seq, epoch or lease number; then random
sequences of events meet two runs and two workers. After each event rows and model say the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final
from uuid import UUID

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.control.sweep import BEGINNING
from scheduler.domain.run import TRANSITIONS, Outcome
from scheduler.store.database import Database
from scheduler.store.dispatch import Dispatch
from scheduler.store.execution import Executions, Settled
from scheduler.store.intake import Intake
from scheduler.store.reaping import Reaping
from scheduler.store.reconcile import Reconcile
from scheduler.store.registration import Registration
from tests.model.database import ModelDatabase, Run
from tests.support.recurring import lead
from tests.support.rows import IDS, add_worker, new_task

STATES: Final = tuple(TRANSITIONS)
_numbers = itertools.count(1)

Event = Callable[["Both", int, int], Awaitable[None]]


class Both:
    """PostgreSQL and the model, side by side: two runs of a queue of their own, two workers, one leader."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.model = ModelDatabase()
        self.queue = f"q{next(_numbers)}"
        self.fences: dict[int, int] = {0: 0}  # the model's → PostgreSQL's
        self.runs: list[UUID] = []
        self.tasks: list[UUID] = []
        self.workers: list[UUID] = []
        self.epoch = 0
        self.reaping = Reaping(database, IDS)

    async def begin(self) -> None:
        """Make the rows."""
        self.workers = [await add_worker(self.database) for _ in range(2)]
        for worker in self.workers:
            self.model.register(worker)
        for _ in range(2):
            [created] = await Intake(self.database).create_batch([[new_task(queue=self.queue)]])
            assert created.run_id is not None
            self.runs.append(created.run_id)
            self.tasks.append(created.task_id)
            self.model.insert(Run(created.run_id, "queued", 0.0))
        self.epoch = self.model.epoch = await lead(self.database)

    def executions(self, worker: int) -> Executions:
        async def ignore(_: Settled) -> None:
            return

        return Executions(self.database, IDS, self.workers[worker], lanes_open=list, on_settled=ignore)

    async def write(self, sql: str, *args: object) -> None:
        async with self.database.session() as connection:
            await connection.execute(sql, *args)

    def claimed(self, theirs: list[Any], ours: list[Run]) -> None:
        """Note the fences of what both have claimed."""
        assert sorted(claim.run_id for claim in theirs) == sorted(run.id for run in ours)
        by_id = {claim.run_id: claim.fence for claim in theirs}
        for run in ours:
            self.fences[run.fence] = by_id[run.id]

    async def compare(self) -> None:
        """Every row is what the model says."""
        async with self.database.session() as connection:
            rows = await connection.fetch("SELECT * FROM runs WHERE id = ANY($1::uuid[])", self.runs)
            ended = await connection.fetch("SELECT * FROM attempts WHERE run_id = ANY($1::uuid[])", self.runs)
            letters = await connection.fetch(
                "SELECT run_id, state FROM dead_letter_tasks WHERE run_id = ANY($1::uuid[]) AND state = 'open'",
                self.runs,
            )
            workers = await connection.fetch("SELECT id, state FROM workers WHERE id = ANY($1::uuid[])", self.workers)
        for row in rows:
            run = self.model.runs[row["id"]]
            for name in ("state", "dispatch_seq", "attempt", "worker_id", "failures", "losses", "suspect", "held",
                         "cancel_requested"):  # fmt: skip
                assert row[name] == getattr(run, name), f"{name} of a {run.state} run"
            assert (row["fence"] or 0) == self.fences[run.fence]
            assert (row["queued_at"] is not None) == (run.queued_at is not None) or run.over
        assert {(row["run_id"], row["attempt"]): (row["fence"], row["worker_id"], row["outcome"]) for row in ended} == {
            key: (self.fences[fence], worker, outcome) for key, (fence, worker, outcome) in self.model.attempts.items()
        }
        assert {row["run_id"] for row in letters} == {
            r for r, state in self.model.dead_letters.items() if state == "open"
        }
        assert {row["id"]: row["state"] for row in workers} == self.model.workers


def claim(seq: int) -> Event:
    async def event(both: Both, run: int, worker: int) -> None:
        offer = (both.runs[run], both.model.runs[both.runs[run]].dispatch_seq + seq)
        both.claimed(await both.executions(worker).claim([offer]), both.model.claim(both.workers[worker], [offer]))

    return event


async def claim_waiting(both: Both, _: int, worker: int) -> None:
    both.claimed(
        await both.executions(worker).claim_waiting([both.queue], 10, -1.0),
        both.model.claim_waiting(both.workers[worker], 10, 0.0),
    )


def finish(state: Any, outcome: Any, *, fresh: bool) -> Event:
    async def event(both: Both, run: int, worker: int) -> None:
        run_id = both.runs[run]
        fence = both.model.runs[run_id].fence if fresh else max(0, both.model.runs[run_id].fence - 1)
        now = await both.database.fetchval("database_now")
        report = Outcome(
            run_id=run_id, fence=both.fences.get(fence, 0), state=state, attempt_outcome=outcome, reason="exit:1",
            started_at=now, finished_at=now,
        )  # fmt: skip
        [finished] = await both.executions(worker)._flush([report])
        expected = both.model.finish(both.workers[worker], run_id, fence, state, outcome)
        assert finished.applied == (expected is not None)
        assert finished.state == (None if expected in (None, "repeated") else expected)

    return event


async def cancel(both: Both, run: int, _: int) -> None:
    await both.database.fetch("cancel_runs", [both.runs[run]], "default", [], "cancelled", None)
    both.model.cancel(both.runs[run])


async def revive(both: Both, run: int, _: int) -> None:
    run_id = both.runs[run]
    rows = await both.database.fetch(
        "revive", [run_id], [both.queue], [both.queue], [5], [1], [None], "test", [None], None
    )
    assert bool(rows) == both.model.revive(run_id)


async def hold(both: Both, run: int, _: int) -> None:
    await both.database.fetch("hold_runs", both.tasks[run])
    both.model.hold(both.runs[run])


async def release(both: Both, run: int, _: int) -> None:
    await both.database.fetch("release_runs", both.tasks[run])
    both.model.release(both.runs[run])


async def pause_queue(both: Both, _run: int, _worker: int) -> None:
    await both.database.fetch("pause_queue", "default", both.queue, "test")
    both.model.paused = True


async def resume_queue(both: Both, _run: int, _worker: int) -> None:
    await both.database.fetch("resume_queue", "default", both.queue, "test")
    both.model.paused = False


async def withdraw_paused(both: Both, _run: int, _worker: int) -> None:
    await Reconcile(both.database).withdraw_paused(both.epoch, limit=100)
    both.model.withdraw_paused()


def promote(*, fresh: bool) -> Event:
    async def event(both: Both, _run: int, _worker: int) -> None:
        await both.write("UPDATE runs SET run_at = now() - interval '1 minute' WHERE queue = $1", both.queue)
        for run in both.model.runs.values():
            run.run_at = 0.0
        epoch = both.epoch if fresh else both.epoch - 1
        promoted = await Dispatch(both.database).promote(epoch, {(both.queue, 5): 10}, lambda _: BEGINNING)
        assert {run.run_id for run in promoted} == {run.id for run in both.model.promote(epoch, 10) or ()}

    return event


def reap(*, fresh: bool) -> Event:
    async def event(both: Both, _: int, worker: int) -> None:
        worker_id = both.workers[worker]
        number = both.model.leases.get(worker_id, 0) + (not fresh)
        reaped = await both.reaping.reap(worker_id, renewal=number, epoch=both.epoch)
        assert reaped.applied == both.model.reap(worker_id, number)

    return event


async def renew(both: Both, _: int, worker: int) -> None:
    worker_id = both.workers[worker]
    held = [run.fence for run in both.model.runs.values() if run.fence][:1]
    theirs = await Registration(both.database).renew(worker_id, 0, [both.fences[fence] for fence in held])
    ours = both.model.renew(worker_id, held)
    assert (theirs is None) == (ours is None)
    if theirs is not None and ours is not None:
        found = (theirs.cancel, theirs.lost, [run.fence for run in theirs.lacking])
        assert tuple(map(sorted, found)) == tuple(sorted(both.fences[fence] for fence in each) for each in ours)


async def leave(both: Both, _: int, worker: int) -> None:
    await Registration(both.database).leave(both.workers[worker], "test")
    both.model.leave(both.workers[worker])


EVENTS: Final[dict[str, Event]] = {
    "claim": claim(0),
    "claim with a stale seq": claim(-1),
    "claim with a seq of the future": claim(1),
    "claim without redis": claim_waiting,
    "complete": finish("completed", "completed", fresh=True),
    "complete under a stale fence": finish("completed", "completed", fresh=False),
    "fail": finish("failed", "failed", fresh=True),
    "fail under a stale fence": finish("failed", "failed", fresh=False),
    "retry": finish("pending", "failed", fresh=True),
    "retry under a stale fence": finish("pending", "failed", fresh=False),
    "requeue": finish("pending", "requeued", fresh=True),
    "requeue under a stale fence": finish("pending", "requeued", fresh=False),
    "bury": finish("dead_letter", "failed", fresh=True),
    "bury under a stale fence": finish("dead_letter", "failed", fresh=False),
    "end cancelled": finish("cancelled", "cancelled", fresh=True),
    "cancel": cancel,
    "revive": revive,
    "hold": hold,
    "release": release,
    "pause the queue": pause_queue,
    "resume the queue": resume_queue,
    "withdraw what is paused": withdraw_paused,
    "promote": promote(fresh=True),
    "promote in an ended epoch": promote(fresh=False),
    "reap": reap(fresh=True),
    "reap by an old lease number": reap(fresh=False),
    "renew": renew,
    "leave": leave,
}

# How a run comes into each state; `skipped` is written by hand, for want of an upstream.
WAYS: Final[dict[str, tuple[str, ...]]] = {
    "pending": ("claim", "requeue"),
    "queued": (),
    "running": ("claim",),
    "completed": ("claim", "complete"),
    "failed": ("claim", "fail"),
    "cancelled": ("claim", "cancel", "requeue"),
    "skipped": ("claim", "requeue"),
    "dead_letter": ("claim", "bury"),
}


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as made:
        yield made


@pytest.fixture
def both(portal: BlockingPortal, database_url: str) -> Iterator[Callable[[], Both]]:
    database = portal.call(lambda: Database.connect(database_url, name="test", max_size=2))
    yield lambda: Both(database)
    portal.call(database.close)


@pytest.mark.parametrize("state", STATES)
def test_every_event_does_to_a_run_what_the_documented_machine_says(
    portal: BlockingPortal, both: Callable[[], Both], state: str
) -> None:
    async def meet(name: str) -> None:
        made = both()
        await made.begin()
        for step in WAYS[state]:
            await EVENTS[step](made, 0, 0)
        if state == "skipped":
            await made.write("UPDATE runs SET state = 'skipped', finished_at = now() WHERE id = $1", made.runs[0])
            made.model.runs[made.runs[0]].state = "skipped"
        assert made.model.runs[made.runs[0]].state == state
        await EVENTS[name](made, 0, 0)
        await made.compare()

    for name in EVENTS:
        try:
            portal.call(meet, name)
        except AssertionError as error:
            raise AssertionError(f"{name}, met by a {state} run: {error}") from error


@settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # fmt: skip
@given(steps=st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.integers(0, 1), st.integers(0, 1)), max_size=15))
def test_rows_and_model_agree_whatever_happens(
    portal: BlockingPortal, both: Callable[[], Both], steps: list[tuple[str, int, int]]
) -> None:
    async def happen() -> None:
        made = both()
        await made.begin()
        for name, run, worker in steps:
            await EVENTS[name](made, run, worker)
            await made.compare()

    portal.call(happen)
