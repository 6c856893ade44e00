from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from scheduler.domain.ids import first_id_at
from scheduler.domain.term import TermLost
from scheduler.store.database import Database
from scheduler.store.history import BUSY, MORE, History
from scheduler.store.intake import Created, Intake
from tests.support.recurring import lead, recurring

MONTH = 30 * 86400.0
OLD = (datetime.now(UTC) - timedelta(days=60)).replace(hour=12, minute=0, second=0, microsecond=0)


async def sql(database: Database, text: str, *args: object) -> Any:
    async with database.session() as connection:
        return await connection.fetchval(text, *args)


def id_at(moment: datetime, n: int = 1) -> UUID:
    return UUID(int=first_id_at(moment).int + n)


async def add_run(
    database: Database, *, run_at: datetime = OLD, task_at: datetime = OLD, state: str = "completed", n: int = 1
) -> UUID:
    """A one-off task and its run, made at these moments."""
    run_id, task_id = id_at(run_at, n), id_at(task_at, n)
    await sql(
        database,
        "INSERT INTO tasks (id, recurring, namespace, name, queue, spec, created_at, created_by, updated_at,"
        " updated_by) VALUES ($1, false, 'default', 'old', 'default', '{}', now(), 't', now(), 't')",
        task_id,
    )
    await add_run_of(database, task_id, run_id, run_at, state=state)
    return run_id


async def add_run_of(
    database: Database,
    task_id: UUID,
    run_id: UUID,
    run_at: datetime,
    *,
    state: str = "completed",
    trigger: str = "once",
) -> None:
    """A run of a task that there is."""
    await sql(
        database,
        "INSERT INTO runs (id, task_id, namespace, queue, lane, priority, state, trigger, run_at, created_at,"
        " created_by, finished_at, max_attempts)"
        " VALUES ($1, $2, 'default', 'default', 'default', 5, $3::text, $5, $4, $4, 't',"
        " CASE WHEN $3::text = 'completed' THEN now() END, 1)",
        run_id,
        task_id,
        state,
        run_at,
        trigger,
    )


async def add_recurring(database: Database) -> UUID:
    """A recurring task that was created in the old week, under a key."""
    new = msgspec.structs.replace(recurring("each minute", next_fire_at=datetime.now(UTC)), task_id=id_at(OLD, 9))
    assert isinstance(await Intake(database).create_once(new, "recurring", b"f"), Created)
    return new.task_id


async def with_old_week(database: Database) -> tuple[History, int]:
    await sql(database, "SELECT dts_create_week($1::timestamptz)", OLD)
    return History(database), await lead(database)


async def weeks_of(database: Database, parent: str) -> int:
    return int(await sql(database, "SELECT count(*) FROM pg_inherits WHERE inhparent = $1::text::regclass", parent))


async def with_weeks_of_now(database: Database) -> History:
    """This week and two more exist, whenever the schema was made."""
    for weeks in range(3):
        await sql(database, "SELECT dts_create_week($1::timestamptz)", datetime.now(UTC) + timedelta(weeks=weeks))
    return History(database)


async def test_weeks_ahead_are_made_once(database: Database) -> None:
    history, epoch = await with_weeks_of_now(database), await lead(database)
    before = await weeks_of(database, "runs")
    assert await history.create_ahead(epoch, 5) == []
    made = await weeks_of(database, "runs")
    assert made == before + 3  # three were there, this one included
    assert await weeks_of(database, "fires") == made
    assert await history.create_ahead(epoch, 5) == []
    assert await weeks_of(database, "runs") == made


async def test_an_old_week_is_dropped_whole(database: Database) -> None:
    history, epoch = await with_old_week(database)
    before = await weeks_of(database, "runs")
    run_id = await add_run(database)
    await sql(database, "INSERT INTO checkpoints VALUES ($1, '', 1, now())", run_id)
    assert await history.drop_behind(epoch, MONTH) == []
    assert await weeks_of(database, "runs") == before - 1
    assert await weeks_of(database, "fires") == before - 1
    assert await sql(database, "SELECT count(*) FROM pg_class WHERE relname = $1", f"runs_{monday():%Y%m%d}") == 0
    for table in ("runs", "tasks", "checkpoints"):
        assert await sql(database, f"SELECT count(*) FROM {table}") == 0


def monday(moment: datetime = OLD) -> datetime:
    return moment - timedelta(days=moment.weekday())


@pytest.mark.parametrize("state", ["pending", "queued"])
async def test_a_week_with_live_runs_is_kept(database: Database, state: str) -> None:
    history, epoch = await with_old_week(database)
    await add_run(database, state=state)
    assert [kept.reason for kept in await history.drop_behind(epoch, MONTH)] == ["live runs"]
    assert await sql(database, "SELECT count(*) FROM runs") == 1


async def test_a_week_with_blocked_runs_is_kept(database: Database) -> None:
    history, epoch = await with_old_week(database)
    await add_run(database, state="pending")
    await sql(database, "UPDATE runs SET held = true")
    assert [kept.reason for kept in await history.drop_behind(epoch, MONTH)] == ["live runs"]


async def test_a_week_whose_tasks_have_later_runs_is_kept(database: Database) -> None:
    history, epoch = await with_old_week(database)
    await add_run(database, run_at=datetime.now(UTC))
    assert [kept.reason for kept in await history.drop_behind(epoch, MONTH)] == ["later runs of its tasks"]


async def test_a_week_in_which_a_recurring_task_was_created_goes_while_that_fires(database: Database) -> None:
    history, epoch = await with_old_week(database)
    before = await weeks_of(database, "runs")
    run_id, task_id, now = await add_run(database), await add_recurring(database), datetime.now(UTC)
    for n in (1, 2):
        await add_run_of(database, task_id, id_at(now, n), now, trigger="schedule")
    await sql(database, "INSERT INTO idempotency_keys VALUES ('default', 'once', 'f', $1, $1, now(), NULL)", run_id)
    assert await history.drop_behind(epoch, MONTH) == []
    assert await weeks_of(database, "runs") == before - 1
    assert await sql(database, "SELECT count(*) FROM runs") == 2
    assert await sql(database, "SELECT string_agg(key, ',') FROM idempotency_keys") == "recurring"


async def test_a_later_run_of_a_one_off_task_is_seen_behind_those_of_a_recurring_one(database: Database) -> None:
    history, epoch = await with_old_week(database)
    task_id, now = await add_recurring(database), datetime.now(UTC)
    for n in (1, 2):
        await add_run_of(database, task_id, id_at(now, n), now, trigger="schedule")
    await add_run(database, run_at=now, n=10)
    assert [kept.reason for kept in await history.drop_behind(epoch, MONTH)] == ["later runs of its tasks"]


async def test_the_key_of_a_recurring_task_goes_with_it(database: Database) -> None:
    history, epoch = History(database), await lead(database)
    await add_recurring(database)
    await sql(database, "UPDATE tasks SET deleted_at = now() - interval '20 days', next_fire_at = NULL")
    await history.forget(epoch, retention=MONTH, dead_letters=MONTH, undecided=MONTH)
    assert await sql(database, "SELECT count(*) FROM idempotency_keys") == 1
    await history.forget(epoch, retention=MONTH / 2, dead_letters=MONTH, undecided=MONTH)
    assert await sql(database, "SELECT count(*) FROM tasks") == 0
    assert await sql(database, "SELECT count(*) FROM idempotency_keys") == 0


async def test_a_week_with_an_open_dead_letter_is_kept_until_it_is_decided(database: Database) -> None:
    history, epoch = await with_old_week(database)
    run_id = await add_run(database)
    await sql(
        database,
        "INSERT INTO dead_letter_tasks (id, run_id, task_id, namespace, task_name, queue, reason, attempt, failures,"
        " losses, created_at) VALUES ($1, $1, $1, 'default', 'old', 'default', 'lost', 1, 0, 3, now())",
        run_id,
    )
    assert [kept.reason for kept in await history.drop_behind(epoch, MONTH)] == ["open dead letters"]
    await sql(database, "UPDATE dead_letter_tasks SET state = 'discarded', decided_at = now() - interval '31 days'")
    assert await history.drop_behind(epoch, MONTH) == []
    await history.forget(epoch, retention=MONTH, dead_letters=MONTH, undecided=3 * MONTH)
    assert await sql(database, "SELECT count(*) FROM dead_letter_tasks") == 0


async def test_a_dead_letter_that_nobody_decides_about_does_not_hold_its_week_for_ever(database: Database) -> None:
    history, epoch = await with_old_week(database)
    run_id = await add_run(database)
    for number, created_at in enumerate((OLD, datetime.now(UTC))):
        await sql(
            database,
            "INSERT INTO dead_letter_tasks (id, run_id, task_id, namespace, task_name, queue, reason, attempt,"
            " failures, losses, created_at) VALUES ($1, $2, $2, 'default', 'old', 'default', 'exit:1', 1, 1, 0, $3)",
            id_at(OLD, number + 1),
            run_id if number == 0 else id_at(datetime.now(UTC)),
            created_at,
        )
    await history.forget(epoch, retention=MONTH, dead_letters=MONTH, undecided=3 * MONTH)
    assert [kept.reason for kept in await history.drop_behind(epoch, MONTH)] == ["open dead letters"]
    await history.forget(epoch, retention=MONTH, dead_letters=MONTH, undecided=MONTH)
    assert await history.drop_behind(epoch, MONTH) == []
    assert await sql(database, "SELECT string_agg(state, ',' ORDER BY id) FROM dead_letter_tasks") == "discarded,open"


async def test_keys_and_checkpoints_go_a_bounded_number_at_a_time_before_their_week_does(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, epoch = await with_old_week(database)
    before = await weeks_of(database, "runs")
    for limit in ("_ROWS", "_BATCH"):
        monkeypatch.setattr(f"scheduler.store.history.{limit}", 2)
    monkeypatch.setattr("scheduler.store.history._BATCHES", 1)
    for n in range(1, 6):
        run_id = await add_run(database, n=n)
        await sql(database, "INSERT INTO checkpoints VALUES ($1, '', 1, now())", run_id)
        key = "INSERT INTO idempotency_keys VALUES ('default', $1, 'f', $2, $2, now(), NULL)"
        await sql(database, key, f"key {n}", run_id)
    left = []
    while [kept.reason for kept in await history.drop_behind(epoch, MONTH)] == [MORE]:
        assert await weeks_of(database, "runs") == before
        left.append(await sql(database, LEFT))
    assert left == [[3, 5], [1, 5], [0, 3], [0, 1]]
    assert await weeks_of(database, "runs") == before - 1
    assert await sql(database, LEFT) == [0, 0]


LEFT = "SELECT ARRAY[(SELECT count(*) FROM idempotency_keys), (SELECT count(*) FROM checkpoints)]"


async def test_the_keys_and_checkpoints_of_a_week_that_is_kept_stay(database: Database) -> None:
    history, epoch = await with_old_week(database)
    run_id = await add_run(database, state="pending")
    await sql(database, "INSERT INTO checkpoints VALUES ($1, '', 1, now())", run_id)
    await sql(database, "INSERT INTO idempotency_keys VALUES ('default', 'k', 'f', $1, $1, now(), NULL)", run_id)
    assert [kept.reason for kept in await history.drop_behind(epoch, MONTH)] == ["live runs"]
    assert await sql(database, LEFT) == [1, 1]


async def test_recent_weeks_are_kept(database: Database) -> None:
    history, epoch = await with_old_week(database)
    before = await weeks_of(database, "runs")
    assert await history.drop_behind(epoch, 90 * 86400.0) == []
    assert await weeks_of(database, "runs") == before


async def test_traffic_goes_first(database: Database) -> None:
    """Somebody reads the history; dropping gives up instead of queueing everybody behind its lock."""
    history, epoch = await with_old_week(database)
    async with database.session() as connection, connection.transaction():
        await connection.fetch("SELECT count(*) FROM runs")
        assert {kept.reason for kept in await history.drop_behind(epoch, MONTH)} == {"busy"}
    assert await history.drop_behind(epoch, MONTH) == []


async def test_rows_outside_of_any_week_are_an_alarm(database: Database) -> None:
    history, _ = History(database), await lead(database)
    assert await history.uncovered() == []
    await add_run(database)  # sixty days ago: no partition was ever made for that
    assert await history.uncovered() == ["runs_default", "tasks_once_default"]


async def test_rows_outside_of_any_week_move_into_it_once_it_is_made(database: Database) -> None:
    """Nobody led while the weeks made ahead ran out, and work went on."""
    history, epoch = History(database), await lead(database)
    later = datetime.now(UTC) + timedelta(weeks=5)
    run_id = await add_run(database, run_at=later, task_at=later)
    await sql(
        database,
        "INSERT INTO attempts (run_id, attempt, fence, worker_id, outcome, started_at, finished_at, task_version)"
        " VALUES ($1, 1, 1, $1, 'completed', now(), now(), 1)",
        run_id,
    )
    await sql(database, "INSERT INTO run_dependencies VALUES ($1, 0, $1, $1, NULL, 'success', 'met')", run_id)
    await sql(database, "INSERT INTO output_chunks VALUES ($1, 1, 0, 'stdout', 'x', now())", run_id)
    await sql(
        database,
        "INSERT INTO fires (task_id, scheduled_for, disposition, decided_at, epoch) VALUES ($1, $2, 'late', now(), 1)",
        run_id,
        later,
    )
    assert len(await history.uncovered()) == 6
    assert await history.create_ahead(epoch, 6) == []
    assert await history.uncovered() == []
    this_week = monday(datetime.now(UTC))
    for table in ("tasks_once", "runs", "attempts", "run_dependencies", "output_chunks", "fires"):
        home = f"{table}_{monday(later):%Y%m%d}"
        assert await sql(database, f"SELECT tableoid::regclass::text FROM {table}") == home
        indexes = "SELECT count(*) FROM pg_index WHERE indrelid = $1::text::regclass"
        assert await sql(database, indexes, home) == await sql(database, indexes, f"{table}_{this_week:%Y%m%d}")


async def test_rows_of_an_earlier_week_that_nobody_made_are_history_like_others(database: Database) -> None:
    history, epoch = History(database), await lead(database)
    await add_run(database)
    await add_run(database, run_at=OLD + timedelta(weeks=2), task_at=OLD + timedelta(weeks=1), n=2)
    assert await history.create_ahead(epoch, 2) == []
    assert await history.uncovered() == []
    assert await sql(database, "SELECT count(*) FROM runs JOIN tasks ON tasks.id = runs.task_id") == 2
    assert [kept.reason for kept in await history.drop_behind(epoch, MONTH)] == ["later runs of its tasks"]
    assert await history.drop_behind(epoch, MONTH) == []
    assert await sql(database, "SELECT count(*) FROM runs") == 0


async def test_fires_of_last_week_that_nobody_made_are_history_like_others(database: Database) -> None:
    history, epoch = History(database), await lead(database)
    await sql(database, "UPDATE installation SET created_at = created_at - interval '60 days'")
    this_week = monday(datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0)
    await sql(
        database,
        "INSERT INTO fires (task_id, scheduled_for, disposition, decided_at, epoch)"
        " VALUES ($1, $2, 'missed', now(), 1)",
        id_at(OLD),
        this_week - timedelta(seconds=1),
    )
    assert await history.uncovered() == ["fires_default"]
    assert await history.create_ahead(epoch, 2) == []
    assert await history.uncovered() == []


async def test_a_week_that_cannot_be_made_stops_no_other(database: Database) -> None:
    history, epoch = await with_weeks_of_now(database), await lead(database)
    taken = monday(datetime.now(UTC) + timedelta(weeks=4))
    await sql(database, f"CREATE DOMAIN fires_{taken:%Y%m%d} AS integer")  # PostgreSQL has one name for both
    before = await weeks_of(database, "fires")
    (missing,) = await history.create_ahead(epoch, 6)
    assert (missing.week.date(), missing.reason[:20]) == (taken.date(), "DuplicateObjectError")
    assert await weeks_of(database, "fires") == await weeks_of(database, "runs") == before + 3


async def test_fires_older_than_any_partition_are_forgotten(database: Database) -> None:
    history, epoch = History(database), await lead(database)
    await sql(
        database,
        "INSERT INTO fires (task_id, scheduled_for, disposition, decided_at, epoch) VALUES ($1, $2, 'missed', $2, 1)",
        id_at(OLD),
        OLD,
    )
    await history.forget(epoch, retention=2 * MONTH + 86400.0, dead_letters=MONTH, undecided=3 * MONTH)
    assert await sql(database, "SELECT count(*) FROM fires_default") == 1
    await history.forget(epoch, retention=MONTH, dead_letters=MONTH, undecided=3 * MONTH)
    assert await sql(database, "SELECT count(*) FROM fires_default") == 0


FORGETTABLE = {
    "dead_letter_tasks": "INSERT INTO dead_letter_tasks (id, run_id, task_id, namespace, task_name, queue, reason,"
    " attempt, failures, losses, created_at, state, decided_at)"
    " SELECT id, id, id, 'default', 't', 'default', 'lost', 1, 0, 3, at, 'discarded', at FROM old",
    "fires": "INSERT INTO fires (task_id, scheduled_for, disposition, decided_at, epoch)"
    " SELECT id, at, 'missed', at, 1 FROM old",
    "tasks": "INSERT INTO tasks (id, recurring, namespace, name, queue, spec, created_at, created_by, updated_at,"
    " updated_by, deleted_at) SELECT id, true, 'default', 't', 'default', '{}', at, 't', at, 't', at FROM old",
    "workflow_nodes": "WITH run AS (INSERT INTO workflow_runs (run_id, task_id, namespace, version, spec, parameters,"
    " ended) SELECT id, id, 'default', 1, '{}', '{}', true FROM old)"
    " INSERT INTO workflow_nodes SELECT id, 1, 'n', id, id FROM old",
    "workflow_runs": "SELECT 1",
    "events": "INSERT INTO events (id, namespace, name, payload, published_at, published_by)"
    " SELECT id, 'default', 'e', '1', at, 't' FROM old",
}


async def with_much_to_forget(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows of everything that is forgotten row by row, which goes by twos."""
    monkeypatch.setattr("scheduler.store.history._BATCH", 2)
    monkeypatch.setattr("scheduler.store.history._ROWS", 2)
    async with database.session() as connection:
        await connection.execute("CREATE TABLE old (id uuid, at timestamptz)")
        await connection.executemany("INSERT INTO old VALUES ($1, $2)", [(id_at(OLD, n), OLD) for n in range(1, 6)])
        for statement in FORGETTABLE.values():
            await connection.execute(statement)


async def left_of_each(database: Database) -> set[int]:
    return {await sql(database, f"SELECT count(*) FROM {table}") for table in FORGETTABLE}


async def test_much_is_forgotten_a_bounded_number_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, epoch = History(database), await lead(database)
    await with_much_to_forget(database, monkeypatch)
    monkeypatch.setattr("scheduler.store.history._BATCHES", 2)
    assert await history.forget(epoch, retention=MONTH, dead_letters=MONTH, undecided=MONTH)
    assert await left_of_each(database) == {1}
    assert not await history.forget(epoch, retention=MONTH, dead_letters=MONTH, undecided=MONTH)
    assert await left_of_each(database) == {0}


async def test_what_was_forgotten_stays_so_when_a_later_batch_fails(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_much_to_forget(database, monkeypatch)
    epoch = await lead(database)
    hasty = await Database.connect(database_url, name="hasty", max_size=1, settings={"lock_timeout": "100"})
    try:
        async with database.session() as connection, connection.transaction():
            await connection.execute("SELECT FROM workflow_runs ORDER BY run_id LIMIT 1 FOR UPDATE")
            left = await History(hasty).forget(epoch, retention=MONTH, dead_letters=MONTH, undecided=MONTH)
    finally:
        await hasty.close()
    assert left == {"forget_workflow_runs": BUSY}
    assert await sql(database, "SELECT count(*) FROM workflow_runs") == 1
    assert await sql(database, "SELECT count(*) FROM workflow_nodes") == 1


async def test_a_deposed_leader_drops_nothing(database: Database) -> None:
    history, epoch = await with_old_week(database)
    before = await weeks_of(database, "runs")
    await lead(database)
    with pytest.raises(TermLost):
        await history.drop_behind(epoch, MONTH)
    assert await weeks_of(database, "runs") == before
