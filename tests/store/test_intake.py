"""Creating tasks: all or nothing, in groups, with dependencies judged while their upstreams hold still."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import anyio
import asyncpg
import pytest

from scheduler.domain.errors import Conflict, FieldError, InvalidInput
from scheduler.domain.task import TaskSpec, encode_spec
from scheduler.failpoints import Point
from scheduler.store.database import Database, StoreUnavailable
from scheduler.store.intake import Created, Held, NewTask
from scheduler.store.runs import Runs
from tests.support.failpoints import failing, held
from tests.support.locks import waiting_for_locks
from tests.support.rows import IDS, after, bench, count, new_task, outcome, run_row
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


def recurring(name: str) -> NewTask:
    spec = TaskSpec(name=name, command=["/bin/true"], schedule="* * * * *")
    return NewTask(IDS.one(), None, "default", "test", spec, encode_spec(spec))


async def test_single_creations_that_arrive_together_share_commits(database: Database) -> None:
    async with bench(database) as b:
        async with database.session() as connection:
            before = await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
        async with anyio.create_task_group() as group:
            for n in range(100):
                group.start_soon(b.intake.create, new_task(str(n)))
        async with database.session() as connection:
            transactions = (
                await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint") - before
            )
    assert await count(database, "runs") == 100
    assert transactions < 20


@pytest.fixture
async def durable(database_url: str) -> AsyncIterator[Database]:
    """A pool whose commits wait for the disk."""
    settings = {"synchronous_commit": "on"}
    connected = await Database.connect(database_url, name="test", min_size=1, max_size=8, settings=settings)
    try:
        yield connected
    finally:
        await connected.close()


async def lsn(database: Database, function: str) -> int:
    """A place in PostgreSQL's log: where it is written, or how far it is on disk."""
    async with database.session() as connection:
        return await connection.fetchval(f"SELECT {function}() - '0/0'::pg_lsn")


async def test_one_that_is_created_alone_is_offered_at_once_and_acknowledged_when_it_is_on_disk(
    durable: Database,
) -> None:
    acknowledged = anyio.Event()

    async def create() -> None:
        await b.intake.create(new)
        acknowledged.set()

    new = new_task()
    async with bench(durable) as b, anyio.create_task_group() as group:
        with held(Point.INTAKE_FORCING) as gate:
            group.start_soon(create)
            await gate.reached.wait()
            written = await lsn(durable, "pg_current_wal_insert_lsn")
            assert (await run_row(durable, new.run_id))["state"] == "queued"
            assert not acknowledged.is_set()
            gate.go.set()
            await acknowledged.wait()
        assert await lsn(durable, "pg_current_wal_flush_lsn") >= written


async def test_a_claim_brings_all_to_disk_that_was_committed_before(durable: Database) -> None:
    new = new_task()
    async with bench(durable) as b, anyio.create_task_group() as group:
        with held(Point.INTAKE_FORCING) as gate:
            group.start_soon(b.intake.create, new)
            await gate.reached.wait()
            written = await lsn(durable, "pg_current_wal_insert_lsn")
            assert new.run_id is not None
            assert await b.executions.claim([(new.run_id, 1)])
            assert await lsn(durable, "pg_current_wal_flush_lsn") >= written


async def test_one_that_cannot_be_brought_to_disk_is_not_acknowledged_and_not_created_again(
    durable: Database,
) -> None:
    new = new_task()
    async with bench(durable) as b:
        with failing(Point.INTAKE_FORCING, StoreUnavailable("gone")), pytest.raises(StoreUnavailable):
            await b.intake.create(new)
    assert await count(durable, "runs") == 1


async def test_within_a_transaction_the_commit_waits_for_the_disk(durable: Database) -> None:
    async with bench(durable) as b, durable.pinned() as pinned:
        await b.intake.within(pinned, lambda _: None).create(new_task())
        assert await pinned.target.fetchval("SHOW synchronous_commit") == "on"


@pytest.mark.parametrize("together", [False, True])
async def test_a_lane_that_a_failover_has_lost_is_written_again(
    database: Database, database_url: str, together: bool
) -> None:
    """A standby that had not heard of it, or a backup, looks like this: nothing but new sessions says so."""
    observer = await Database.connect(database_url, name="observer", max_size=1)
    async with bench(database) as b:

        async def created() -> Created:
            new = new_task(queue="q")
            return (await b.intake.create_batch([[new]]))[0] if together else await b.intake.create(new)

        await created()
        async with observer.session() as other:
            await other.execute("DELETE FROM lanes WHERE queue = 'q'")
            await other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await until(created, what="a task is created on a new session")
    await observer.close()
    async with database.session() as connection:
        assert await connection.fetchval("SELECT count(*) FROM lanes WHERE queue = 'q'") == 1


async def test_a_batch_that_turns_out_invalid_halfway_leaves_nothing(database: Database) -> None:
    def chunks() -> Iterator[list[NewTask]]:
        yield [new_task() for _ in range(10)]
        yield [new_task() for _ in range(10)]
        raise InvalidInput([FieldError("/20/name", "is wrong")])

    async with bench(database) as b:
        with pytest.raises(InvalidInput):
            await b.intake.create_batch(chunks())
    assert await count(database, "tasks") == 0
    assert await count(database, "runs") == 0


async def test_a_batch_that_the_database_refuses_leaves_nothing(database: Database) -> None:
    same = new_task()
    async with bench(database) as b:
        with pytest.raises(Exception, match="duplicate key"):
            await b.intake.create_batch([[new_task(), same], [new_task()], [same]])
    assert await count(database, "tasks") == 0


async def test_answers_come_in_the_order_of_the_batch(database: Database) -> None:
    tasks = [recurring("r") if n == 3 else new_task(str(n)) for n in range(7)]
    async with bench(database) as b:
        created = await b.intake.create_batch([tasks[:2], tasks[2:]])
    assert [c.task_id for c in created] == [t.task_id for t in tasks]
    assert created[3].run_id is None


async def test_the_name_of_a_recurring_task_is_taken_once(database: Database) -> None:
    async with bench(database) as b:
        await b.intake.create(recurring("nightly"))
        with pytest.raises(Conflict) as caught:
            await b.intake.create_batch([[new_task(), recurring("nightly")]])
    assert caught.value.code == "name_taken"
    assert await count(database, "tasks") == 1


async def test_a_dependency_may_point_at_a_later_chunk(database: Database) -> None:
    upstream = new_task("upstream")
    dependent = new_task("dependent", [after(upstream)])
    async with bench(database) as b:
        created = await b.intake.create_batch([[dependent], [upstream]])
        await b.executions.finish(outcome(await b.claim(created[1])))
    assert (await run_row(database, dependent.run_id))["state"] == "queued"


async def test_a_dependent_of_a_hopeless_run_in_the_same_batch_is_skipped_too(database: Database) -> None:
    upstream = new_task("upstream")
    async with bench(database) as b:
        created = await b.intake.create(upstream)
        await b.executions.finish(outcome(await b.claim(created), "failed"))
        hopeless = new_task("hopeless", [after(upstream)])
        below = new_task("below", [after(hopeless)])
        await b.intake.create_batch([[below], [hopeless]])
    assert (await run_row(database, hopeless.run_id))["state"] == "skipped"
    assert (await run_row(database, below.run_id))["state"] == "skipped"


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled before its start"])
async def test_an_upstream_that_ends_while_its_edge_is_being_inserted_moves_the_dependent(
    database: Database, end: str
) -> None:
    """The end waits for the edge's lock; its snapshot is older than the edge, and it has to find it all the same."""
    upstream = new_task("upstream")
    dependent = new_task("dependent", [after(upstream)])
    below = new_task("below", [after(dependent)])
    waits = False

    def chunks() -> Iterator[list[NewTask]]:
        yield [dependent, below]
        while not waits:
            yield []  # keeps the transaction open

    async with bench(database) as b:
        created = await b.intake.create(upstream)
        claim = None if end.startswith("cancelled") else await b.claim(created)

        async def bring_it_to_its_end() -> None:
            if claim is not None:
                await b.executions.finish(outcome(claim, end))
                return
            async with database.transaction() as executor:
                b.settled.append((await Runs(database).cancel(executor, "default", [created.run_id])).settled)

        async with anyio.create_task_group() as group:
            group.start_soon(b.intake.create_batch, chunks())
            await until(lambda: _is_locked(database, created.run_id), what="the edge holds its lock")
            group.start_soon(bring_it_to_its_end)
            await until(lambda: waiting_for_locks(database), what="the end waits for the lock")
            waits = True
    freed = [queued.run_id for settled in b.settled for queued in settled.queued]
    states = [(await run_row(database, each.run_id))["state"] for each in (dependent, below)]
    if end == "completed":
        assert (freed, states) == ([dependent.run_id], ["queued", "pending"])
    else:
        assert (freed, states) == ([], ["skipped", "skipped"])


async def _is_locked(database: Database, run_id: UUID) -> bool:
    async with database.session() as connection:
        try:
            await connection.execute("SELECT FROM runs WHERE id = $1 FOR UPDATE NOWAIT", run_id)
        except asyncpg.LockNotAvailableError:
            return True
        return False


async def test_an_idempotency_key_returns_the_first_task_and_refuses_another_request(database: Database) -> None:
    first, second = new_task("first"), new_task("second")
    async with bench(database) as b:
        created = await b.intake.create_once(first, "key", b"print")
        again = await b.intake.create_once(second, "key", b"print")
        with pytest.raises(Conflict) as caught:
            await b.intake.create_once(second, "key", b"other")
    assert isinstance(created, Created)
    assert isinstance(again, Held)
    assert again.task_id == first.task_id
    assert caught.value.code == "idempotency_key_reused"
    assert await count(database, "tasks") == 1


async def test_a_key_is_known_with_the_task_and_the_request_that_hold_it(database: Database) -> None:
    new = new_task()
    async with bench(database) as b:
        await b.intake.create_once(new, "key", b"print")
        assert await b.intake.held("default", "never used") is None
        assert await b.intake.held("default", "key") == Held("key", b"print", new.task_id)


async def test_two_requests_with_one_key_at_the_same_time_make_one_task(database: Database) -> None:
    results: list[object] = []
    async with bench(database) as b, anyio.create_task_group() as group:

        async def create() -> None:
            results.append(await b.intake.create_once(new_task(), "key", b"print"))

        for _ in range(5):
            group.start_soon(create)
    assert sorted(type(result).__name__ for result in results) == ["Created"] + ["Held"] * 4
    assert await count(database, "tasks") == 1
