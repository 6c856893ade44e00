from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import asyncpg
import pytest

from scheduler.broker import Broker
from scheduler.control import fire
from scheduler.control.fire import SCHEDULES, Firer, Unreadable
from scheduler.control.promote import Promoter
from scheduler.domain.clock import SystemClock
from scheduler.domain.task import Dependency
from scheduler.domain.term import TermLost
from scheduler.health import Health
from scheduler.store.database import Database
from scheduler.store.intake import NewTask
from scheduler.store.schedules import Plan, Schedules
from tests.support.recurring import add, lead, leading, minute, recurring, scheduler
from tests.support.rows import Bench, bench, new_task, outcome
from tests.support.waiting import until

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Leader:
    """A leader whose steps are taken by hand."""

    def __init__(self, database: Database, broker: Broker, epoch: int) -> None:
        at_work = leading(database, broker, epoch, poll=60.0)
        self.health = at_work.health
        self.schedules = Schedules(database)
        self.firer = Firer(at_work, self.schedules)
        self.promoter = Promoter(at_work)
        self.fire = self.firer.step
        self.promote = self.promoter.step


@pytest.fixture
async def leader(database: Database, broker: Broker) -> Leader:
    return Leader(database, broker, await lead(database))


async def rows(database: Database, sql: str, *args: object) -> list[Any]:
    async with database.session() as connection:
        return await connection.fetch(sql, *args)


async def fires_of(database: Database, task_id: UUID) -> list[tuple[datetime, str, int]]:
    found = await rows(database, "SELECT * FROM fires WHERE task_id = $1 ORDER BY scheduled_for", task_id)
    return [(row["scheduled_for"], row["disposition"], row["count"]) for row in found]


async def runs_of(database: Database, task_id: UUID) -> list[Any]:
    return await rows(database, "SELECT * FROM runs WHERE task_id = $1 ORDER BY id", task_id)


async def edges_of(database: Database, run_id: UUID) -> list[Any]:
    return await rows(database, "SELECT * FROM run_dependencies WHERE run_id = $1 ORDER BY position", run_id)


async def task_row(database: Database, task_id: UUID) -> Any:
    return (await rows(database, "SELECT * FROM tasks WHERE id = $1", task_id))[0]


def hourly(name: str, at: datetime, **fields: Any) -> NewTask:
    """A task that fires each hour at the minute of `at`, next at `at`, and has runs for late fires too."""
    fields = {"catchup_window": 30 * 86400.0, "overlap": "allow_all"} | fields
    return recurring(name, f"{at.minute} * * * *", next_fire_at=at, **fields)


async def test_a_due_task_fires_once_and_moves_on(database: Database, leader: Leader) -> None:
    at = minute(1)
    [task_id] = await add(database, hourly("report", at))
    await leader.fire()
    await leader.fire()
    [run] = await runs_of(database, task_id)
    assert (run["trigger"], run["scheduled_for"], run["state"]) == ("schedule", at, "pending")
    assert [fire[0] for fire in await fires_of(database, task_id)] == [at]
    task = await task_row(database, task_id)
    assert (task["fire_cursor"], task["next_fire_at"], task["occurrences"]) == (at, at + HOUR, 1)


async def test_in_an_open_lane_the_run_is_queued_and_offered_at_once(
    database: Database, leader: Leader, broker: Broker
) -> None:
    await broker.mark_open("default")
    [task_id] = await add(database, hourly("report", minute(1)))
    await leader.fire()
    [run] = await runs_of(database, task_id)
    assert (run["state"], run["dispatch_seq"]) == ("queued", 1)
    assert (await broker.stats(["default"]))["default"].ready[5] == 1


async def test_the_fires_of_one_task_are_decided_once_whoever_believes_to_lead(
    database: Database, broker: Broker
) -> None:
    deposed = Leader(database, broker, await lead(database))
    [task_id] = await add(database, hourly("report", minute(1)))
    successor = Leader(database, broker, await lead(database))
    with pytest.raises(TermLost):
        await deposed.fire()
    assert await runs_of(database, task_id) == []
    await successor.fire()
    assert len(await runs_of(database, task_id)) == 1


async def test_a_task_that_somebody_holds_stops_no_other_and_fires_once_it_is_free(
    database: Database, leader: Leader
) -> None:
    """As an API does that is stopped while it triggers, pauses or edits the task."""
    held, free = await add(database, hourly("held", minute(1)), hourly("free", minute(1)))
    async with database.transaction() as other:
        await other.fetchrow("lock_task", held, "default")
        with anyio.fail_after(5):
            await leader.fire()
        assert await runs_of(database, held) == []
        assert len(await runs_of(database, free)) == 1
    await leader.fire()
    assert len(await runs_of(database, held)) == 1


async def test_a_run_that_somebody_holds_stops_only_the_task_that_it_has_to_make_way_for(
    database: Database, leader: Leader
) -> None:
    tasks = await add(database, *(hourly(name, minute(1), overlap="cancel_other") for name in ("held", "free")))
    held, free = tasks
    await leader.fire()
    for task_id in tasks:
        await an_hour_passes(database, task_id)
    async with database.session() as other, other.transaction():
        await other.execute("SELECT FROM runs WHERE task_id = $1 FOR UPDATE", held)
        with anyio.fail_after(5):
            await leader.fire()
        assert [run["state"] for run in await runs_of(database, held)] == ["pending"]
        assert [run["state"] for run in await runs_of(database, free)] == ["cancelled", "pending"]
    await leader.fire()
    assert [run["state"] for run in await runs_of(database, held)] == ["cancelled", "pending"]


async def test_what_is_queued_is_offered_though_somebody_holds_a_run_that_another_one_waits_for(
    database: Database, database_url: str, broker: Broker
) -> None:
    hasty = await Database.connect(database_url, name="test", settings={"lock_timeout": "100"})
    leader = Leader(hasty, broker, await lead(database))
    await broker.mark_open("default")
    [line] = await add(database, hourly("line", minute(1), overlap="buffer_all"))
    await leader.fire()
    await an_hour_passes(database, line)
    await add(database, hourly("free", minute(1)))
    async with database.session() as other, other.transaction():
        await other.execute("SELECT FROM runs WHERE task_id = $1 FOR UPDATE", line)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await leader.fire()
    assert (await broker.stats(["default"]))["default"].ready[5] == 2
    await hasty.close()


async def test_two_leaders_that_decide_the_same_fire_make_one_run(database: Database, broker: Broker) -> None:
    """Even if both were to hold the term: the second finds the task moved on."""
    epoch = await lead(database)
    [task_id] = await add(database, hourly("report", minute(1)))
    async with anyio.create_task_group() as group:
        group.start_soon(Leader(database, broker, epoch).fire)
        group.start_soon(Leader(database, broker, epoch).fire)
    assert len(await runs_of(database, task_id)) == 1
    assert (await task_row(database, task_id))["occurrences"] == 1


async def test_a_task_triggered_paused_or_edited_meanwhile_is_left_for_the_next_round(
    database: Database, broker: Broker
) -> None:
    epoch = await lead(database)
    triggered, paused, replanned, edited, untouched = await add(
        database, *(hourly(name, minute(1)) for name in ("triggered", "paused", "replanned", "edited", "untouched"))
    )
    schedules = Schedules(database)
    firer = Firer(leading(database, broker, epoch), schedules)
    due, _ = await schedules.due(10, {})
    await rows(database, "UPDATE tasks SET occurrences = occurrences + 1 WHERE id = $1", triggered)
    await rows(database, "UPDATE tasks SET paused = true WHERE id = $1", paused)
    await rows(database, "UPDATE tasks SET next_fire_at = next_fire_at + interval '1 day' WHERE id = $1", replanned)
    await rows(
        database, """UPDATE tasks SET spec = spec || '{"queue": "new"}', version = version + 1 WHERE id = $1""", edited
    )
    decided, _ = await firer._decide(due, {})
    await firer._fire(decided)
    made = [len(await runs_of(database, task_id)) for task_id in (triggered, paused, replanned, edited, untouched)]
    assert made == [0, 0, 0, 0, 1]
    assert await fires_of(database, triggered) == []
    await firer.step()
    assert len(await runs_of(database, triggered)) == 1
    assert [run["queue"] for run in await runs_of(database, edited)] == ["new"]


async def test_a_fire_that_was_decided_before_does_not_stop_the_others(database: Database, leader: Leader) -> None:
    """A cursor set back by hand, or by a restore of one table."""
    at = minute(1)
    broken, sound = await add(database, hourly("broken", at), hourly("sound", at))
    await rows(
        database,
        "INSERT INTO fires (task_id, scheduled_for, disposition, decided_at, epoch) VALUES ($1, $2, 'fired', now(), 1)",
        broken,
        at,
    )
    await leader.fire()
    assert await runs_of(database, broken) == []
    assert len(await runs_of(database, sound)) == 1
    assert (await task_row(database, broken))["next_fire_at"] == at + HOUR


async def test_a_task_that_overlaps_is_skipped_and_that_is_recorded(database: Database, leader: Leader) -> None:
    [task_id] = await add(database, hourly("report", minute(1), overlap="skip"))
    await leader.fire()
    await an_hour_passes(database, task_id)
    await leader.fire()
    assert len(await runs_of(database, task_id)) == 1
    assert [fire[1] for fire in await fires_of(database, task_id)][1:] == ["skipped:overlap"]


async def an_hour_passes(database: Database, task_id: UUID) -> None:
    """Move all that was decided about a task an hour into the past, so that its next fire is due."""
    hour = "interval '1 hour'"
    await rows(database, f"UPDATE fires SET scheduled_for = scheduled_for - {hour} WHERE task_id = $1", task_id)
    await rows(
        database,
        f"UPDATE tasks SET fire_cursor = fire_cursor - {hour}, next_fire_at = next_fire_at - {hour} WHERE id = $1",
        task_id,
    )


async def test_a_buffered_run_waits_for_every_older_one(database: Database, leader: Leader) -> None:
    at = minute(1)
    [task_id] = await add(
        database,
        recurring(
            "line", f"{at.minute} * * * *", next_fire_at=at - 2 * HOUR, catchup="all", catchup_window=30 * 86400.0
        ),
    )
    async with bench(database) as made:
        await leader.fire()
        first, second, third = await runs_of(database, task_id)
        assert [run["unmet"] for run in (first, second, third)] == [0, 1, 2]
        await leader.promote()
        assert [run["state"] for run in await runs_of(database, task_id)] == ["queued", "pending", "pending"]
        [claim] = await made.executions.claim([(first["id"], 1)])
        await made.executions.finish(outcome(claim))
        assert [run["unmet"] for run in await runs_of(database, task_id)][1:] == [0, 1]


async def test_however_much_there_is_to_catch_up_with_it_is_written_a_bounded_number_of_rows_at_a_time(
    database: Database, leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fire, "_ROWS", 21)
    late = minute(1) - 4 * HOUR  # five runs, each of which waits for all before it: 5 fires + 5 runs + 10 edges
    names = ("one", "two", "three", "four")
    tasks = await add(database, *(hourly(name, late, catchup="all", overlap="skip") for name in names))
    written = []
    write = leader.schedules.write

    async def noted(epoch: int, plans: Sequence[Plan]) -> set[UUID]:
        runs = [run for plan in plans for run in plan.runs]
        written.append(sum(len(plan.fires) for plan in plans) + len(runs) + sum(len(run.edges or ()) for run in runs))
        return await write(epoch, plans)

    monkeypatch.setattr(leader.schedules, "write", noted)
    assert await leader.fire() == 0.0
    await leader.fire()
    assert written == [40, 40]
    for task_id in tasks:
        assert [run["unmet"] for run in await runs_of(database, task_id)] == [0, 1, 2, 3, 4]


async def test_cancel_other_asks_the_running_one_to_end_and_the_new_one_waits(
    database: Database, leader: Leader, broker: Broker
) -> None:
    [task_id] = await add(database, hourly("report", minute(1), overlap="cancel_other"))
    async with bench(database) as made:
        await leader.fire()
        [claim] = await run_what_is_due(leader, made, database, task_id)
        await an_hour_passes(database, task_id)
        async with told(broker, f"worker:{made.worker_id}") as messages:
            await leader.fire()
            await until(lambda: messages == [str(claim.run_id).encode()])
        old, new = await runs_of(database, task_id)
        assert (old["state"], old["cancel_requested"]) == ("running", True)
        assert (new["state"], new["unmet"]) == ("pending", 1)
        await made.executions.finish(outcome(claim, "failed"))
        old, new = await runs_of(database, task_id)
        assert (old["state"], new["unmet"]) == ("cancelled", 0)


async def run_what_is_due(leader: Leader, made: Bench, database: Database, task_id: UUID) -> list[Any]:
    """Promote and claim the pending runs of a task."""
    await leader.promote()
    return await made.executions.claim(
        [(run["id"], run["dispatch_seq"]) for run in await runs_of(database, task_id) if run["state"] == "queued"]
    )


@asynccontextmanager
async def told(broker: Broker, channel: str) -> AsyncIterator[list[bytes]]:
    """Gather the messages of a channel while the block lasts."""
    messages: list[bytes] = []
    async with anyio.create_task_group() as group:
        group.start_soon(broker.run, Health(SystemClock()))
        listener = broker.listen(channel, messages.append)
        await listener.active.wait()
        yield messages
        broker.unlisten(listener)
        group.cancel_scope.cancel()


def on(upstream: UUID, condition: Any = "success") -> list[Dependency]:
    return [Dependency(task=str(upstream), on=condition)]


async def test_a_run_waits_for_the_newest_fire_of_its_upstream_that_was_planned_before_it(
    database: Database, leader: Leader
) -> None:
    at = minute(1)
    [upstream] = await add(database, hourly("upstream", at - timedelta(minutes=5)))
    [dependent] = await add(database, hourly("dependent", at, depends_on=on(upstream)))
    async with bench(database) as made:
        await leader.fire()
        [first], [run] = await runs_of(database, upstream), await runs_of(database, dependent)
        [edge] = await edges_of(database, run["id"])
        assert (edge["upstream_run_id"], edge["upstream_fire"]) == (first["id"], at - timedelta(minutes=5))
        assert (run["state"], run["unmet"]) == ("pending", 1)
        [claim] = await run_what_is_due(leader, made, database, upstream)
        await made.executions.finish(outcome(claim))
        [run] = await runs_of(database, dependent)
        assert run["unmet"] == 0


async def test_a_fire_that_is_decided_later_is_waited_for_and_then_bound(database: Database, leader: Leader) -> None:
    """The upstream's planned fire precedes the run's, but the leader comes to it later."""
    at = minute(1)
    before = at - timedelta(minutes=5)
    [upstream] = await add(database, hourly("upstream", before, catchup="last"))
    [dependent] = await add(database, hourly("dependent", at, depends_on=on(upstream)))
    await rows(database, "UPDATE tasks SET paused = true WHERE id = $1", upstream)
    await leader.fire()
    [run] = await runs_of(database, dependent)
    [edge] = await edges_of(database, run["id"])
    assert (edge["upstream_run_id"], edge["upstream_fire"], edge["state"]) == (None, before, "waiting")
    await rows(database, "UPDATE tasks SET paused = false WHERE id = $1", upstream)
    await leader.fire()
    [edge] = await edges_of(database, run["id"])
    assert edge["upstream_run_id"] == (await runs_of(database, upstream))[0]["id"]


async def test_a_fire_that_was_coalesced_is_waited_for_in_the_run_that_absorbed_it(
    database: Database, leader: Leader
) -> None:
    at = minute(1)
    [upstream] = await add(database, hourly("upstream", at - 3 * HOUR, catchup="last"))
    [dependent] = await add(database, hourly("dependent", at - 2 * HOUR, depends_on=on(upstream), catchup="all"))
    await leader.fire()
    [absorbing] = await runs_of(database, upstream)
    dependents = await runs_of(database, dependent)
    assert len(dependents) == 3
    for run in dependents:
        [edge] = await edges_of(database, run["id"])
        assert edge["upstream_run_id"] == absorbing["id"]


async def test_a_fire_that_was_missed_skips_who_waits_for_it_and_their_dependents(
    database: Database, leader: Leader
) -> None:
    at = minute(1)
    [upstream] = await add(database, hourly("upstream", at - 2 * HOUR, catchup="none"))
    [middle] = await add(database, hourly("middle", at - HOUR, depends_on=on(upstream), catchup="all"))
    [last] = await add(database, hourly("last", at, depends_on=on(middle)))
    await leader.fire()
    for task_id in (middle, last):
        for run in await runs_of(database, task_id):
            assert (run["state"], run["reason"]) == ("skipped", "dependency_failed")


async def test_an_upstream_that_was_never_planned_before_cannot_hold(database: Database, leader: Leader) -> None:
    at = minute(1)
    [upstream] = await add(database, recurring("upstream", "0 0 1 1 *", next_fire_at=at + DAY, cursor=at))
    [dependent] = await add(database, hourly("dependent", at, depends_on=on(upstream)))
    await leader.fire()
    [run] = await runs_of(database, dependent)
    assert (run["state"], run["reason"]) == ("skipped", "dependency_failed")


async def test_an_upstream_that_ended_while_the_edge_was_written_is_noticed(database: Database, leader: Leader) -> None:
    at = minute(1)
    [upstream] = await add(database, hourly("upstream", at - timedelta(minutes=5)))
    async with bench(database) as made:
        await leader.fire()
        [claim] = await run_what_is_due(leader, made, database, upstream)
        await made.executions.finish(outcome(claim))
        [dependent] = await add(database, hourly("dependent", at, depends_on=on(upstream)))
        await leader.fire()
        [run] = await runs_of(database, dependent)
        [edge] = await edges_of(database, run["id"])
        assert (edge["state"], run["unmet"]) == ("met", 0)


async def test_a_running_scheduler_fires_what_falls_due(database: Database, database_url: str, redis_url: str) -> None:
    async with scheduler(database_url, redis_url) as leader:
        await until(lambda: leader.leads)
        soon = datetime.now(minute().tzinfo).replace(microsecond=0) + timedelta(seconds=1)
        [task_id] = await add(database, recurring("soon", "* * * * * *", next_fire_at=soon))
        await until(lambda: runs_of(database, task_id))
        [fire, *_] = await fires_of(database, task_id)
        assert fire[:2] == (soon, "fired")


async def test_a_running_scheduler_promotes_what_falls_due(
    database: Database, database_url: str, redis_url: str
) -> None:
    async with bench(database) as made, scheduler(database_url, redis_url) as leader:
        await until(lambda: leader.leads)
        at = datetime.now(minute().tzinfo) + timedelta(seconds=0.5)
        created = await made.intake.create(new_task(straight=False, run_at=at))
        run = (await until(lambda: queued(database, created.task_id)))[0]
        assert run["queued_at"] >= at


async def queued(database: Database, task_id: UUID) -> list[Any]:
    return [run for run in await runs_of(database, task_id) if run["state"] == "queued"]


NEVER = '{"schedule": "never"}'
NOVELTY = '{"novelty": true}'
LATER_FORMAT = '{"format": 2, "novelty": true}'


async def redefine(database: Database, task_id: UUID, change: str) -> None:
    """Change what is stored of a definition, without regard to what it means."""
    await rows(
        database,
        "UPDATE tasks SET spec = spec - 'novelty' || $2::text::jsonb, version = version + 1 WHERE id = $1",
        task_id,
        change,
    )


@pytest.mark.parametrize("change", [NEVER, NOVELTY, LATER_FORMAT])
async def test_a_task_that_cannot_be_read_stops_none_but_those_that_depend_on_it(
    database: Database, leader: Leader, change: str
) -> None:
    at = minute(1)
    broken, sound = await add(database, hourly("broken", at), hourly("sound", at))
    [dependent] = await add(database, hourly("dependent", at, depends_on=on(broken)))
    await redefine(database, broken, change)
    await leader.fire()
    assert await leader.fire() > 1.0, "what cannot be fired is no reason to look again at once"
    assert len(await runs_of(database, sound)) == 1
    for task_id in (broken, dependent):
        assert await fires_of(database, task_id) == []
    assert not leader.health.ok


@pytest.mark.parametrize("change", [NEVER, NOVELTY])
async def test_a_task_that_was_mended_fires_in_the_same_term_and_so_do_those_that_depend_on_it(
    database: Database, leader: Leader, change: str
) -> None:
    at = minute(1)
    [broken] = await add(database, hourly("broken", at))
    [dependent] = await add(database, hourly("dependent", at, depends_on=on(broken)))
    await redefine(database, broken, change)
    await leader.fire()
    await redefine(database, broken, f'{{"schedule": "{at.minute} * * * *"}}')
    await leader.fire()
    await leader.fire()
    [upstream], [run] = await runs_of(database, broken), await runs_of(database, dependent)
    [edge] = await edges_of(database, run["id"])
    assert edge["upstream_run_id"] == upstream["id"]
    assert leader.health.ok


async def test_what_a_leader_could_not_read_is_no_complaint_of_its_own_once_it_has_been_replaced(
    database: Database, database_url: str, redis_url: str
) -> None:
    [broken] = await add(database, hourly("broken", minute(1)))
    await redefine(database, broken, NEVER)
    async with scheduler(database_url, redis_url) as leader:
        await until(lambda: SCHEDULES in leader.health.snapshot())
        assert not leader.health.ok
        leader.stop.set()
        await leader.done.wait()
        assert SCHEDULES not in leader.health.snapshot()


def test_a_task_that_could_not_be_read_is_tried_again_after_a_while_and_forgotten_if_it_is_not_due_any_more() -> None:
    one, other = UUID(int=1), UUID(int=2)
    unreadable = Unreadable()
    assert unreadable.note(one, 1, 10.0)
    assert unreadable.note(other, 1, 20.0)
    assert unreadable.versions(9.0) == {one: 1, other: 1}
    assert unreadable.versions(10.0) == {other: 1}
    assert not unreadable.note(one, 1, 30.0), "this is no news"
    assert unreadable.note(one, 2, 30.0)
    unreadable.expire(20.0)
    assert unreadable.versions(20.0) == {one: 2}
    assert unreadable.summary()
    unreadable.read([other])
    assert unreadable.versions(20.0) == {one: 2}
    unreadable.read([one])
    assert not unreadable.summary()


async def test_a_task_that_gives_way_does_not_stop_at_a_fire_that_was_decided_before(
    database: Database, leader: Leader
) -> None:
    at = minute(1)
    [task_id] = await add(database, hourly("report", at, overlap="terminate_other"))
    await leader.fire()
    await rows(
        database,
        "UPDATE tasks SET fire_cursor = fire_cursor - interval '1 second', next_fire_at = $2 WHERE id = $1",
        task_id,
        at,
    )
    await leader.fire()
    assert len(await runs_of(database, task_id)) == 1
    assert (await task_row(database, task_id))["next_fire_at"] == at + HOUR


async def test_a_fire_that_a_calendar_blacks_out_makes_no_run(database: Database, leader: Leader) -> None:
    async with database.session() as connection:
        await connection.execute(
            "INSERT INTO calendars (namespace, name, spec, created_at, created_by, updated_at, updated_by)"
            ' VALUES (\'default\', \'always\', \'{"weekly": [{"days": ["mon","tue","wed","thu","fri","sat","sun"]}]}\','
            " now(), 't', now(), 't')"
        )
    at = minute()
    kept, free = (hourly("kept", at, calendars=["always", "gone"]), hourly("free", at, calendars=["gone"]))
    await add(database, kept, free)
    await leader.fire()
    assert [disposition for _, disposition, _ in await fires_of(database, kept.task_id)] == ["skipped:calendar"]
    assert await runs_of(database, kept.task_id) == []
    assert len(await runs_of(database, free.task_id)) == 1
