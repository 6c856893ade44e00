"""Promote, reap and reconcile: what the leader does for runs that exist."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import anyio.to_thread
import asyncpg
import msgspec
import pytest

from scheduler.broker import Broker
from scheduler.control.observe import Observer
from scheduler.control.promote import Promoter
from scheduler.control.reap import Reaper
from scheduler.control.reconcile import Reconciler
from scheduler.control.retain import Keeper
from scheduler.domain.clock import SystemClock
from scheduler.domain.observation import Expired
from scheduler.domain.term import TermLost
from scheduler.domain.workflows import decode_workflow
from scheduler.failpoints import Point
from scheduler.store.database import Database
from scheduler.store.history import History
from scheduler.store.intake import NewTask
from scheduler.store.reaping import Reaping
from scheduler.store.reconcile import Reconcile
from scheduler.store.runs import Runs
from scheduler.store.schedules import Schedules
from scheduler.store.tasks import Tasks
from scheduler.store.workflows import Workflows
from tests.broker.support import offer
from tests.support.failpoints import held
from tests.support.lanes import lane_state
from tests.support.recurring import lead, leading, minute, recurring, scheduler
from tests.support.rows import IDS, QUICK_LEASE, add_worker, after, bench, new_task, outcome, run_row
from tests.support.servers import ServerHandle
from tests.support.waiting import until


@pytest.fixture
async def away(servers: Any) -> AsyncIterator[Broker]:
    """A broker whose Redis is not there."""
    url = servers.new_valkey(servers.next_name()).url
    async with Broker.connect(url, installation="test", name="test", clock=SystemClock()) as disconnected:
        yield disconnected


def reconciler(database: Database, broker: Broker, epoch: int, **settings: Any) -> Reconciler:
    at_work = leading(database, broker, epoch, **({"stale_after": 0.0} | settings))
    return Reconciler(at_work, Reconcile(database), Schedules(database))


async def execute(database: Database, sql: str, *args: object) -> None:
    async with database.session() as connection:
        await connection.execute(sql, *args)


async def ready(broker: Broker, lane: str = "default") -> int:
    return sum((await broker.stats([lane]))[lane].ready)


async def state_of(database: Database, run_id: UUID | None) -> tuple[str, str | None]:
    run = await run_row(database, run_id)
    return run["state"], run["reason"]


# ------------------------------------------------------------------------------------------------ promote


async def test_due_runs_are_queued_offered_and_then_the_lane_is_opened(database: Database, broker: Broker) -> None:
    async with bench(database) as made:
        created = [await made.intake.create(new_task(straight=False)) for _ in range(3)]
        promoter = Promoter(leading(database, broker, await lead(database), batch=2))
        assert await promoter.step() == 0.0
        assert await broker.is_open(["default"]) == set()  # one is still to come
        assert await promoter.step() == 0.0
        assert await promoter.step() > 0.0
        assert await broker.is_open(["default"]) == {"default"}
        assert await ready(broker) == 3
        for one in created:
            assert (await state_of(database, one.run_id))[0] == "queued"


async def test_promotion_stops_at_the_window_and_sleeps_until_there_is_room(database: Database, redis_url: str) -> None:
    async with (
        Broker.connect(redis_url, installation="test", name="test", clock=SystemClock(), window=2) as broker,
        bench(database) as made,
    ):
        for _ in range(3):
            await made.intake.create(new_task(straight=False))
        promoter = Promoter(leading(database, broker, await lead(database), window=2, poll=7.0))
        assert await promoter.step() == 0.0
        assert await promoter.step() == 7.0
        assert await ready(broker) == 2
        assert await broker.is_open(["default"]) == set()


async def test_the_promoter_sleeps_until_the_next_run_falls_due(database: Database, broker: Broker) -> None:
    async with bench(database) as made:
        await made.intake.create(new_task(straight=False, run_at=datetime.now(UTC) + timedelta(seconds=20)))
        delay = await Promoter(leading(database, broker, await lead(database), poll=60.0)).step()
        assert 15 < delay < 20.1


async def test_without_redis_runs_are_queued_up_to_the_window(database: Database, away: Broker) -> None:
    async with bench(database) as made:
        for _ in range(3):
            await made.intake.create(new_task(straight=False))
        promoter = Promoter(leading(database, away, await lead(database), window=2))
        await promoter.step()
        await promoter.step()
        async with database.session() as connection:
            assert await connection.fetchval("SELECT count(*) FROM runs WHERE state = 'queued'") == 2


async def test_a_redis_that_hangs_holds_up_no_promotion(
    database: Database, redis_server: ServerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.broker.link._DEADLINE", 60.0)
    async with (
        Broker.connect(redis_server.url, installation="test", name="test", clock=SystemClock()) as broker,
        bench(database) as made,
    ):
        await broker.ping()
        created = await made.intake.create(new_task(straight=False))
        promoter = Promoter(leading(database, broker, await lead(database)))
        redis_server.freeze()
        try:
            async with anyio.create_task_group() as group:
                with held(Point.PROMOTED) as gate:
                    group.start_soon(promoter.step)
                    with anyio.fail_after(20):  # a call waits for a minute
                        await gate.reached.wait()
                    assert (await state_of(database, created.run_id))[0] == "queued"
                    group.cancel_scope.cancel()
        finally:
            redis_server.thaw()


async def test_a_deposed_leader_promotes_nothing(database: Database, broker: Broker) -> None:
    async with bench(database) as made:
        created = await made.intake.create(new_task(straight=False))
        promoter = Promoter(leading(database, broker, await lead(database)))
        await lead(database)
        await promoter.step()
        assert (await state_of(database, created.run_id))[0] == "pending"


# ------------------------------------------------------------------------------------------------ reap


async def test_a_silent_worker_is_reaped_and_a_renewing_one_never(
    database: Database, database_url: str, redis_url: str
) -> None:
    async with bench(database, lease=QUICK_LEASE) as made, scheduler(database_url, redis_url) as leader:
        await until(lambda: leader.leads)
        renewing = await add_worker(database)
        claim = await made.claim(await made.intake.create(new_task()))

        async def dead(worker_id: UUID) -> bool:
            await execute(database, "UPDATE worker_leases SET renewal = renewal + 1 WHERE worker_id = $1", renewing)
            return await worker_state(database, worker_id) == "dead"

        await until(lambda: dead(made.worker_id))
        assert not await dead(renewing)
        await until(lambda: lost_once(database, claim.run_id))


async def lost_once(database: Database, run_id: UUID) -> bool:
    return bool((await run_row(database, run_id))["losses"] == 1)


async def test_a_worker_whose_credit_expires_in_redis_is_offered_nothing_and_is_not_reaped(
    database: Database, database_url: str, redis_url: str, broker: Broker
) -> None:
    async with bench(database) as made, scheduler(database_url, redis_url) as leader:
        await until(lambda: leader.leads)
        claim = await made.claim(await made.intake.create(new_task()))
        silent = await add_worker(database)
        await offer(broker, made.worker_id, 5, 0.001)
        await until(lambda: without_credit(broker))
        before = (await lane_state(broker)).undelivered
        waiting = await made.intake.create(new_task())
        assert waiting.queued is not None
        await broker.push([waiting.queued])
        assert (await lane_state(broker)).undelivered <= before

        async def leases_were_judged() -> bool:
            renew = "UPDATE worker_leases SET renewal = renewal + 1 WHERE worker_id = $1"
            await execute(database, renew, made.worker_id)
            return await worker_state(database, silent) == "dead"

        await until(leases_were_judged)
        assert await without_credit(broker)
        assert await worker_state(database, made.worker_id) == "live"
        run = await run_row(database, claim.run_id)
        assert (run["state"], run["losses"], run["worker_id"]) == ("running", 0, made.worker_id)


async def without_credit(broker: Broker) -> bool:
    lane = await lane_state(broker)
    return (lane.credit, lane.workers) == (0, 0)


async def worker_state(database: Database, worker_id: UUID) -> str:
    async with database.session() as connection:
        state: str = await connection.fetchval("SELECT state FROM workers WHERE id = $1", worker_id)
    return state


async def test_a_worker_whose_run_somebody_holds_keeps_no_other_from_being_reaped(
    database: Database, database_url: str, broker: Broker
) -> None:
    hasty = await Database.connect(database_url, name="test", settings={"lock_timeout": "100"})
    reaping = Reaping(hasty, IDS)
    observer = Observer(reaping, clock=SystemClock(), on_expired=lambda: None)
    reaper = Reaper(leading(hasty, broker, await lead(database)), reaping, observer)
    async with bench(database) as held, bench(database) as free:
        claims = [await made.claim(await made.intake.create(new_task())) for made in (held, free)]
        observer.expired = [Expired(made.worker_id, 0) for made in (held, free)]
        async with database.session() as other, other.transaction():
            await other.execute("SELECT FROM runs WHERE id = $1 FOR UPDATE", claims[0].run_id)
            with pytest.raises(asyncpg.LockNotAvailableError):
                await reaper.step()
            assert [(await state_of(database, claim.run_id))[0] for claim in claims] == ["running", "pending"]
        await reaper.step()
        assert (await state_of(database, claims[0].run_id))[0] == "pending"
    await hasty.close()


async def test_a_new_leader_need_not_observe_from_the_beginning(
    database: Database, database_url: str, redis_url: str
) -> None:
    async with bench(database, lease=QUICK_LEASE) as made:
        claim = await made.claim(await made.intake.create(new_task()))
        async with scheduler(database_url, redis_url) as first:
            await until(lambda: first.leads)
            async with scheduler(database_url, redis_url) as second:
                await until(lambda: "candidate.observe" in second.health.snapshot())
                first.stop.set()
                await until(lambda: second.leads)
                await until(lambda: lost_once(database, claim.run_id), seconds=QUICK_LEASE + 3)


# ------------------------------------------------------------------------------------------------ reconcile


async def test_queued_runs_that_redis_does_not_know_are_pushed_again(database: Database, broker: Broker) -> None:
    async with bench(database) as made:
        for _ in range(3):
            await made.intake.create(new_task())
        mender = reconciler(database, broker, await lead(database))
        await mender.step()  # rebuilds: nobody has built for these servers yet
        assert await ready(broker) == 3
        await broker.clear("default")  # entries get lost, and nothing says so
        await mender.step()
        assert await ready(broker) == 3


async def test_a_sweep_over_more_than_a_page_reaches_everything(database: Database, broker: Broker) -> None:
    tasks = [new_task(f"t{i}", priority=i % 3) for i in range(1250)]
    async with bench(database) as made:
        await made.intake.create_batch([tasks])
        mender = reconciler(database, broker, await lead(database))
        await mender.step()
        await broker.clear("default")
        for _ in range(4):
            await mender.step()
        assert await ready(broker) == 1250


async def test_a_wiped_redis_is_rebuilt_at_once(database: Database, broker: Broker, redis_url: str) -> None:
    async with bench(database) as made:
        created = await made.intake.create(new_task())
        mender = reconciler(database, broker, await lead(database), stale_after=3600.0)
        await mender.step()
        assert await ready(broker) == 1
        await wipe(redis_url)
        await mender.step()
        assert await ready(broker) == 1
        assert created.queued is not None


async def wipe(redis_url: str) -> None:
    import redis.asyncio  # noqa: PLC0415

    client = redis.asyncio.Redis.from_url(redis_url)
    await client.flushdb()
    await client.aclose()


async def test_a_restored_database_rebuilds_the_lanes_even_for_a_new_leader(database: Database, broker: Broker) -> None:
    async with bench(database) as made:
        await made.intake.create(new_task())
        await reconciler(database, broker, await lead(database)).step()
        await execute(database, "UPDATE installation SET restore_marker = gen_random_uuid()")
        await execute(database, "UPDATE runs SET state = 'cancelled', finished_at = now()")  # the backup knew less
        await reconciler(database, broker, await lead(database)).step()
        assert await ready(broker) == 0


async def test_runs_of_a_paused_queue_go_back(database: Database, broker: Broker) -> None:
    async with bench(database) as made:
        created = await made.intake.create(new_task())
        await execute(database, "INSERT INTO queues VALUES ('default', 'default', true, now(), 'test')")
        await reconciler(database, broker, await lead(database)).step()
        run = await run_row(database, created.run_id)
        assert (run["state"], run["dispatch_seq"]) == ("pending", 2)


async def test_a_run_past_its_start_before_fails_and_its_dependents_follow(database: Database, broker: Broker) -> None:
    upstream = new_task("upstream", straight=False, schedule_timeout=1.0)
    async with bench(database) as made:
        created = await made.intake.create(upstream)
        dependent = await made.intake.create(new_task("dependent", [after(upstream)], straight=False))
        await execute(
            database, "UPDATE runs SET start_before = now() - interval '1 second' WHERE id = $1", created.run_id
        )
        await reconciler(database, broker, await lead(database)).step()
        assert await state_of(database, created.run_id) == ("failed", "schedule_timeout")
        assert await state_of(database, dependent.run_id) == ("skipped", "dependency_failed")


async def test_a_run_that_started_in_time_is_not_given_up_while_it_waits_for_a_retry(
    database: Database, broker: Broker
) -> None:
    async with bench(database) as made:
        claim = await made.claim(await made.intake.create(new_task(schedule_timeout=1.0)))
        await made.executions.finish(outcome(claim, "pending", retry_in=60.0))
        await execute(database, "UPDATE runs SET start_before = now() - interval '1 second'")
        await reconciler(database, broker, await lead(database)).step()
        assert (await state_of(database, claim.run_id))[0] == "pending"


async def test_an_edge_whose_upstream_ended_unseen_is_settled(database: Database, broker: Broker) -> None:
    upstream = new_task("upstream")
    async with bench(database) as made:
        claim = await made.claim(await made.intake.create(upstream))
        dependent = await made.intake.create(new_task("dependent", [after(upstream)], straight=False))
        await made.executions.finish(outcome(claim))
        await execute(database, "UPDATE run_dependencies SET state = 'waiting'")
        await execute(
            database, "UPDATE runs SET unmet = 1, state = 'pending', queued_at = NULL WHERE id = $1", dependent.run_id
        )
        await reconciler(database, broker, await lead(database)).step()
        assert (await run_row(database, dependent.run_id))["unmet"] == 0


@pytest.mark.parametrize("wrong", [2, 3])
async def test_a_wrong_count_is_corrected(database: Database, broker: Broker, wrong: int) -> None:
    upstream = new_task("upstream", straight=False)
    async with bench(database) as made:
        await made.intake.create(upstream)
        dependent = await made.intake.create(new_task("dependent", [after(upstream)], straight=False))
        await execute(database, "UPDATE runs SET unmet = $2 WHERE id = $1", dependent.run_id, wrong)
        await reconciler(database, broker, await lead(database)).step()
        assert (await run_row(database, dependent.run_id))["unmet"] == 1


async def test_a_blocked_run_with_an_impossible_edge_is_skipped(database: Database, broker: Broker) -> None:
    upstream = new_task("upstream", straight=False)
    async with bench(database) as made:
        await made.intake.create(upstream)
        dependent = await made.intake.create(new_task("dependent", [after(upstream)], straight=False))
        await execute(database, "UPDATE run_dependencies SET state = 'impossible'")
        await reconciler(database, broker, await lead(database)).step()
        assert await state_of(database, dependent.run_id) == ("skipped", "dependency_failed")


async def test_a_run_revived_in_spite_of_what_it_waited_for_is_held_by_a_pause_and_not_skipped_again(
    database: Database, broker: Broker
) -> None:
    upstream = new_task("upstream")
    dependent = new_task("dependent", [after(upstream)], straight=False)
    async with bench(database) as made:
        claim = await made.claim(await made.intake.create(upstream))
        await made.intake.create(dependent)
        await made.executions.finish(outcome(claim, "failed"))
        assert await state_of(database, dependent.run_id) == ("skipped", "dependency_failed")
        assert dependent.run_id is not None
        async with database.transaction() as executor:
            await Runs(database).revive(executor, "default", [(dependent.run_id, dependent.spec_json)], "test")
            await Tasks(database).pause(executor, dependent.task_id, "test")
        await reconciler(database, broker, await lead(database)).step()
        run = await run_row(database, dependent.run_id)
        assert (run["state"], run["reason"], run["held"], run["unmet"]) == ("pending", None, True, 0)


async def test_expired_answers_and_workers_that_ended_long_ago_are_forgotten(
    database: Database, broker: Broker
) -> None:
    now = "now() - interval '1 hour'"
    for key, expires in (("old", now), ("new", "now() + interval '1 hour'")):
        await execute(
            database,
            "INSERT INTO request_keys (namespace, actor, key, request, fingerprint, created_at, expires_at)"
            f" VALUES ('default', 'a', $1, '', '', {now}, {expires})",
            key,
        )
    gone, kept = await add_worker(database), await add_worker(database)
    await execute(database, f"UPDATE workers SET state = 'left', ended_at = {now} WHERE id = $1", gone)
    await reconciler(database, broker, await lead(database), dead_workers=60.0).step()
    async with database.session() as connection:
        requests = {row["key"] for row in await connection.fetch("SELECT key FROM request_keys")}
        workers = [row["id"] for row in await connection.fetch("SELECT id FROM workers")]
    assert requests == {"new"}
    assert workers == [kept]


async def test_what_got_into_a_namespace_while_it_was_deleted_is_deleted_and_cancelled(
    database: Database, broker: Broker
) -> None:
    def within(namespace: str, new: NewTask) -> NewTask:
        return msgspec.structs.replace(new, namespace=namespace)

    workflow = decode_workflow(b'{"name": "w", "tasks": [{"name": "x", "command": "true"}]}')
    await execute(
        database,
        "INSERT INTO namespaces (name, created_at, created_by, deleted_at, deleted_by)"
        " VALUES ('kept', now(), 'test', NULL, NULL), ('gone', now(), 'test', now(), 'who deleted it')",
    )
    made: dict[str, dict[str, NewTask]] = {}
    async with bench(database) as b:
        for namespace in ("kept", "gone"):
            first = within(namespace, new_task("first", straight=False))
            tasks = {
                "waits": first,
                "follows": within(namespace, new_task("follows", [after(first, "completion")], straight=False)),
                "queued": within(namespace, new_task("queued")),
                "executes": within(namespace, new_task("executes")),
                "recurring": within(namespace, recurring("recurring", next_fire_at=minute(-5))),
                "carrier": within(namespace, recurring("w", next_fire_at=minute(-5))),
            }
            created = await b.intake.create_batch([list(tasks.values())])
            await b.claim(created[3])
            async with database.transaction() as executor:
                await Workflows(database).insert(executor, namespace, tasks["carrier"].task_id, workflow, "test")
            made[namespace] = tasks
        await reconciler(database, broker, await lead(database)).step()

    async def states(namespace: str) -> dict[str, str]:
        runs = {name: new.run_id for name, new in made[namespace].items() if new.run_id is not None}
        return {name: (await state_of(database, run_id))[0] for name, run_id in runs.items()}

    async with database.session() as connection:
        present = "SELECT namespace FROM tasks WHERE recurring AND deleted_at IS NULL"
        assert [row["namespace"] for row in await connection.fetch(present)] == ["kept"] * 2
        deleted = "SELECT DISTINCT updated_by, next_fire_at FROM tasks WHERE recurring AND deleted_at IS NOT NULL"
        assert [tuple(row) for row in await connection.fetch(deleted)] == [("who deleted it", None)]
        assert [row["namespace"] for row in await connection.fetch("SELECT namespace FROM workflows")] == ["kept"]
        asked = "SELECT namespace FROM runs WHERE state = 'running' AND cancel_requested"
        assert [row["namespace"] for row in await connection.fetch(asked)] == ["gone"]
    assert await states("kept") == {"waits": "pending", "follows": "pending", "queued": "queued", "executes": "running"}
    assert await states("gone") == {
        "waits": "cancelled",
        "follows": "cancelled",
        "queued": "cancelled",
        "executes": "running",
    }


async def test_a_deposed_leader_mends_nothing(database: Database, broker: Broker) -> None:
    mender = reconciler(database, broker, await lead(database))
    await lead(database)
    with pytest.raises(TermLost):
        await mender.step()


async def test_without_redis_the_rest_is_mended(database: Database, away: Broker) -> None:
    async with bench(database) as made:
        created = await made.intake.create(new_task(straight=False, schedule_timeout=1.0))
        await execute(database, "UPDATE runs SET start_before = now() - interval '1 second'")
        await reconciler(database, away, await lead(database)).step()
        assert await state_of(database, created.run_id) == ("failed", "schedule_timeout")


async def test_when_redis_returns_empty_everything_queued_is_there_again(
    database: Database, database_url: str, redis_server: ServerHandle
) -> None:
    async with bench(database) as made, scheduler(database_url, redis_server.url) as leader:
        await until(lambda: leader.leads)
        for _ in range(3):
            await made.intake.create(new_task())
        await until(lambda: all_ready(leader.broker, 3))
        await anyio.to_thread.run_sync(redis_server.kill)
        for _ in range(2):
            await made.intake.create(new_task(straight=False))
        await until(lambda: all_queued(database, 5))  # promoted without Redis
        await anyio.to_thread.run_sync(redis_server.start)
        await until(lambda: all_ready(leader.broker, 5))


async def all_ready(broker: Broker, number: int) -> bool:
    return await ready(broker) == number


async def all_queued(database: Database, number: int) -> bool:
    async with database.session() as connection:
        return bool(await connection.fetchval("SELECT count(*) FROM runs WHERE state = 'queued'") == number)


async def test_housekeeping_goes_on_and_is_not_hurried_when_a_week_cannot_be_made(
    database: Database, broker: Broker
) -> None:
    old, ahead = datetime.now(UTC) - timedelta(days=60), datetime.now(UTC) + timedelta(weeks=4)
    taken = ahead - timedelta(days=ahead.weekday())
    for moment in (old, *(datetime.now(UTC) + timedelta(weeks=n) for n in range(3))):
        await execute(database, "SELECT dts_create_week($1::timestamptz)", moment)
    await execute(database, f"CREATE DOMAIN fires_{taken:%Y%m%d} AS integer")  # PostgreSQL has one name for both
    at_work = leading(database, broker, await lead(database), weeks_ahead=4)
    assert await Keeper(at_work, History(database)).step() == 600.0
    told = at_work.health.snapshot()["scheduler.history"]
    assert (told.ok, told.detail[:32]) == (False, f"no partitions yet for {taken:%Y-%m-%d}")
    async with database.session() as connection:
        weeks = await connection.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'runs'::regclass")
    assert weeks == 1 + 3 + 1  # the default, those that were there, and one of the two that were missing


async def test_a_week_that_takes_too_long_to_make_is_left_for_later_and_how_to_make_it_is_told(
    database: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.store.history._AT_MOST_MS", 3000)
    outside = (
        "INSERT INTO tasks (id, recurring, namespace, name, queue, spec, created_at, created_by, updated_at,"
        " updated_by) VALUES (dts_first_id_at($1), false, 'default', 'old', 'default', '{}', now(), 't', now(), 't')"
    )
    for weeks in range(3):
        await execute(database, "SELECT dts_create_week($1::timestamptz)", datetime.now(UTC) + timedelta(weeks=weeks))
    await execute(database, outside, datetime.now(UTC) - timedelta(days=10))
    await execute(database, MOVES_SLOWLY)
    at_work = leading(database, broker, await lead(database), weeks_ahead=4)
    keeper = Keeper(at_work, History(database))
    for _ in range(2):
        assert await keeper.step() == 600.0
        told = at_work.health.snapshot()["scheduler.history"]
        assert not told.ok
        async with database.session() as connection:
            assert await connection.fetchval("SELECT last_value FROM tries") == 1
            weeks = await connection.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'runs'::regclass")
        assert weeks == 1 + 3 + 2  # the default, those that were there, and the two that were missing
    remedy = re.search(r"SELECT dts_create_week\(.*?\)", told.detail)
    assert remedy is not None
    await execute(database, "DROP TRIGGER slow ON tasks_once_default")
    await execute(database, remedy[0])
    assert await keeper.step() == 600.0
    assert at_work.health.ok


MOVES_SLOWLY = """
CREATE SEQUENCE tries;
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM nextval('tries'), pg_sleep(60);
  RETURN OLD;
END
$$;
CREATE TRIGGER slow BEFORE DELETE ON tasks_once_default FOR EACH ROW EXECUTE FUNCTION slow()
"""


async def test_what_is_left_to_forget_is_come_back_for_soon(
    database: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.store.history._BATCHES", 1)
    monkeypatch.setattr("scheduler.store.history._BATCH", 1)
    for n in (1, 2):
        event = "INSERT INTO events VALUES (dts_first_id_at($1), 'default', 'e', '1', $1, 't')"
        await execute(database, event, datetime.now(UTC) - timedelta(days=60 + n))
    keeper = Keeper(leading(database, broker, await lead(database)), History(database))
    assert [await keeper.step() for _ in range(3)] == [5.0, 5.0, 600.0]


async def test_what_cannot_be_forgotten_keeps_nothing_else_from_going_and_is_told_of(
    database: Database, database_url: str, broker: Broker
) -> None:
    async with bench(database) as made:
        created = await made.intake.create(new_task())
        await made.executions.finish(outcome(await made.claim(created)))
    long_ago = datetime.now(UTC) - timedelta(days=60)
    await execute(database, "UPDATE runs SET kept_for = 1, finished_at = $1, output_tail = 'left'", long_ago)
    decided = (
        "INSERT INTO dead_letter_tasks (id, run_id, task_id, namespace, task_name, queue, reason, attempt, failures,"
        " losses, created_at, state, decided_at)"
        " SELECT id, id, id, 'default', 't', 'default', 'lost', 1, 0, 3, $1::timestamptz, 'discarded', $1 FROM runs"
    )
    await execute(database, decided, long_ago)
    hasty = await Database.connect(database_url, name="hasty", max_size=2, settings={"lock_timeout": "100"})
    at_work = leading(hasty, broker, await lead(database))
    keeper = Keeper(at_work, History(hasty))
    try:
        async with database.session() as connection, connection.transaction():
            await connection.execute("SELECT FROM dead_letter_tasks FOR UPDATE")
            assert await keeper.step() == 5.0
        told = at_work.health.snapshot()["scheduler.history"]
        assert (told.ok, told.detail) == (False, "cannot forget dead letters: busy")
        assert (await run_row(database, created.run_id))["output_tail"] is None
        assert await keeper.step() == 600.0
        assert at_work.health.ok
    finally:
        await hasty.close()
