"""A working system contradicts no promise; what contradicts one is found, whichever it is."""

from __future__ import annotations

import pytest

from scheduler.broker import Broker
from scheduler.control.fire import Firer
from scheduler.control.sweep import BEGINNING
from scheduler.domain.clock import SystemClock
from scheduler.domain.task import Concurrency
from scheduler.store.database import Database
from scheduler.store.dispatch import Dispatch
from scheduler.store.invariants import INVARIANTS, check
from scheduler.store.reaping import Reaping
from scheduler.store.schedules import Schedules
from tests.support.recurring import add, lead, leading, minute, recurring
from tests.support.rows import IDS, add_worker, after, bench, new_task, outcome

pytestmark = pytest.mark.anyio

# What contradicts an invariant: its name, and what changes the history that `history` makes.
PLANTED = [
    (line.partition(": ")[0], line.partition(": ")[2])
    for line in """
task_without_run: DELETE FROM runs WHERE id = {done}
run_without_task: DELETE FROM tasks WHERE id = (SELECT task_id FROM runs WHERE id = {waiting})
lane_unknown: UPDATE runs SET lane = 'nowhere' WHERE id = {waiting}
attempt_unrecorded: DELETE FROM attempts WHERE run_id = {done} AND attempt = 1
attempt_unrecorded: UPDATE runs SET attempt = attempt + 1, state = state WHERE id = {executing}
two_outcomes: UPDATE attempts SET outcome = 'completed' WHERE run_id = {done}
two_outcomes: UPDATE runs SET state = 'failed' WHERE id = {done}
fences_out_of_order: UPDATE attempts SET fence = fence + 10000 WHERE run_id = {done} AND attempt = 1
fence_reused: UPDATE attempts SET fence = (SELECT fence FROM runs WHERE id = {executing}) WHERE run_id = {done}
  AND attempt = 2
fence_of_the_future: SELECT setval('fence_seq', 1)
fire_run_twice: UPDATE runs SET trigger = 'schedule', task_id = (SELECT task_id FROM runs WHERE id = {fired}),
  scheduled_for = (SELECT scheduled_for FROM runs WHERE id = {fired}) WHERE id = {waiting}
run_without_fire: DELETE FROM fires
fire_without_run: DELETE FROM runs WHERE id = {fired}
epoch_of_the_future: UPDATE fires SET epoch = epoch + 1
deposed_leader_wrote: UPDATE leadership SET epoch = epoch + 1, acquired_at = {old}
attempts_overlap: UPDATE attempts SET finished_at = finished_at + interval '1 minute' WHERE run_id = {done} AND
  attempt = 1
runs_of_the_dead: UPDATE workers SET state = 'dead', ended_at = {old} WHERE id = {worker}
runs_of_the_dead: DELETE FROM workers WHERE id = {worker}
lease_of_the_dead: UPDATE workers SET state = 'dead', ended_at = dts_now() WHERE id = {worker}
lease_of_the_dead: DELETE FROM worker_leases WHERE worker_id = {worker}
budget_overcharged: UPDATE runs SET failures = 2 WHERE id = {done}
budget_overcharged: UPDATE runs SET losses = 1 WHERE id = {waiting}
budget_exhausted: UPDATE runs SET losses = 3 WHERE id = {waiting}
output_after_the_end: INSERT INTO output_chunks SELECT id, attempt, 0, 'stdout', 'late', finished_at + interval
  '1 ms' FROM runs WHERE id = {done}
fire_overdue: UPDATE tasks_recurring SET next_fire_at = {old}, updated_at = {old}
cursor_behind: UPDATE tasks_recurring SET fire_cursor = fire_cursor - interval '2 minutes'
cursor_behind: UPDATE tasks_recurring SET next_fire_at = fire_cursor
fire_unexplained: UPDATE fires SET disposition = 'missed'
outside_partitions: INSERT INTO output_chunks VALUES (gen_random_uuid(), 1, 0, 'stdout', '', dts_now())
outputs_too_large: UPDATE runs SET outputs = jsonb_build_object('x', repeat('x', 600000)) WHERE id = {done}
worker_not_heard: UPDATE worker_leases SET renewed_at = {old} WHERE worker_id = {worker}
waits_for_the_ended: UPDATE run_dependencies SET upstream_run_id = {done}; UPDATE runs SET finished_at = {old}
  WHERE id = {done}
waits_for_the_ended: UPDATE runs SET unmet = 2 WHERE id = {blocked}
not_promoted: UPDATE runs SET run_at = {old} WHERE id = {waiting}; DELETE FROM runs WHERE state = 'queued'
not_claimed: UPDATE runs SET queued_at = {old} WHERE state = 'queued'
dead_letter_torn: DELETE FROM dead_letter_tasks
dead_letter_torn: UPDATE runs SET state = 'failed' WHERE id = {buried}
end_torn: UPDATE attempts SET outcome = 'requeued' WHERE run_id = {buried}
""".replace("\n  ", " ")
    .strip()
    .splitlines()
]


@pytest.fixture
async def history(database: Database, redis_url: str) -> dict[str, str]:
    """One run of every kind, made the way that the system makes them; names and their ids as SQL."""
    epoch = await lead(database)
    async with bench(database) as b:
        done = await b.claim(await b.intake.create(new_task("done")))
        await b.executions.finish(outcome(done, "pending"))
        await b.executions.claim_waiting(["default"], 1, 0)
        [promoted] = await Dispatch(database).promote(epoch, {("default", 5): 1}, lambda _: BEGINNING)
        [again] = await b.executions.claim([(promoted.run_id, promoted.seq)])
        await b.executions.finish(outcome(again))
        buried = await b.claim(await b.intake.create(new_task("buried")))
        await b.executions.finish(outcome(buried, "dead_letter"))
        lost = await b.claim(await b.intake.create(new_task("lost", on_lost="fail")))
        await Reaping(database, IDS).reap(b.worker_id, renewal=0, epoch=epoch)
    async with bench(database) as b:
        upstream = new_task("executing")
        executing = await b.claim(await b.intake.create(upstream))
        blocked = await b.intake.create(new_task("blocked", [after(upstream)]))
        await b.intake.create(new_task("queued"))
        waiting = await b.intake.create(new_task("waiting", queue="default", straight=False, delay=3600))
        worker = b.worker_id
    idle = await add_worker(database)
    [task_id] = await add(database, recurring("minutely", next_fire_at=minute()))
    broker = Broker.connect(redis_url, installation="test", name="test", clock=SystemClock())
    try:
        await Firer(leading(database, broker, epoch), Schedules(database)).step()
    finally:
        await broker.close()
    async with database.session() as connection:
        # As if all of this had been going on for a while.
        await connection.execute("UPDATE leadership SET acquired_at = acquired_at - interval '1 hour'")
        await connection.execute("UPDATE workers SET registered_at = registered_at - interval '1 hour'")
        fired = await connection.fetchval("SELECT id FROM runs WHERE task_id = $1", task_id)
    assert fired is not None
    assert lost.run_id is not None
    ids = {
        "done": done.run_id, "buried": buried.run_id, "executing": executing.run_id, "blocked": blocked.run_id,
        "waiting": waiting.run_id, "fired": fired, "worker": worker, "idle": idle,
    }  # fmt: skip
    return {name: f"'{value}'::uuid" for name, value in ids.items()} | {"old": "dts_now() - interval '10 minutes'"}


async def broken(database: Database) -> dict[str, int]:
    return {finding.name: len(finding.violations) for finding in await check(database) if finding.violations}


@pytest.mark.usefixtures("history")
async def test_what_the_system_makes_contradicts_no_promise(database: Database) -> None:
    assert await broken(database) == {}


async def test_a_run_that_waits_for_its_place_behind_a_gate_contradicts_nothing(
    database: Database, history: dict[str, str]
) -> None:
    """However long it has been due, and although nothing is queued in its lane."""
    one_at_a_time = {"queue": "gated", "concurrency": Concurrency(key="k", max_runs=1)}
    async with bench(database) as b:
        await b.claim(await b.intake.create(new_task("holds the place", **one_at_a_time)))
        waits = await b.intake.create(new_task("waits", straight=False, **one_at_a_time))
        async with database.session() as connection:
            await connection.execute(f"UPDATE runs SET run_at = {history['old']} WHERE id = $1", waits.run_id)
    assert await broken(database) == {}


@pytest.mark.parametrize(("name", "planted"), PLANTED)
async def test_what_contradicts_a_promise_is_found(
    database: Database, history: dict[str, str], name: str, planted: str
) -> None:
    async with database.session() as connection:
        await connection.execute(planted.format(**history))
    assert name in await broken(database)


def test_every_promise_that_sql_can_see_has_an_invariant_and_every_invariant_is_tried() -> None:
    assert {invariant.promise for invariant in INVARIANTS} == set(range(1, 13))
    assert {invariant.name for invariant in INVARIANTS} == {name for name, _ in PLANTED}
