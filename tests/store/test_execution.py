"""Claims and outcomes: the fence decides, a repeated report costs nothing, dependents follow in the same commit."""

from __future__ import annotations

import anyio
import pytest

from scheduler.domain.task import FORMAT
from scheduler.store.database import Database, StoreUnavailable
from scheduler.store.execution import Executions
from scheduler.store.statements import STATEMENTS
from tests.support.locks import waiting_for_locks
from tests.support.rows import IDS, add_worker, after, bench, new_task, outcome, run_row
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


async def test_a_claim_takes_the_run_its_fence_and_its_command_together(database: Database) -> None:
    async with bench(database) as b:
        created = await b.intake.create(new_task("greet", env={"A": "1"}))
        claim = await b.claim(created)
        row = await run_row(database, created.run_id)
    assert (row["state"], row["attempt"], row["worker_id"]) == ("running", 1, b.worker_id)
    assert row["fence"] == claim.fence
    assert b'"greet"' in claim.spec


async def test_an_offer_with_an_old_seq_or_a_second_claim_gets_nothing(database: Database) -> None:
    async with bench(database) as b:
        created = await b.intake.create(new_task())
        assert await b.executions.claim([(created.run_id, 0), (created.run_id, 2)]) == []
        assert len(await b.executions.claim([(created.run_id, 1)])) == 1
        assert await b.executions.claim([(created.run_id, 1)]) == []


async def test_many_claimers_of_the_same_offers_never_share_a_run(database: Database) -> None:
    async with bench(database) as b:
        created = await b.intake.create_batch([[new_task() for _ in range(100)]])
        offers = [(c.run_id, 1) for c in created]
        claims = []

        async def claim_all(worker: Executions, order: list) -> None:
            claims.extend(await worker.claim(order))

        async with anyio.create_task_group() as group:
            for n in range(6):
                worker = Executions(
                    database, IDS, await add_worker(database), lanes_open=list, on_settled=b._on_settled
                )
                group.start_soon(claim_all, worker, offers[n * 10 :] + offers[: n * 10])
    assert len(claims) == 100
    assert len({claim.run_id for claim in claims}) == 100
    assert len({claim.fence for claim in claims}) == 100


@pytest.mark.parametrize("state", ["draining", "live"])
async def test_only_a_live_incarnation_may_claim(database: Database, state: str) -> None:
    async with bench(database) as b:
        created = await b.intake.create(new_task())
        worker_id = await add_worker(database, state=state)
        worker = Executions(database, IDS, worker_id, lanes_open=list, on_settled=b._on_settled)
        assert len(await worker.claim([(created.run_id, 1)])) == (state == "live")


async def test_a_paused_queue_sends_an_offered_run_back_to_pending(database: Database) -> None:
    async with bench(database) as b:
        created = await b.intake.create(new_task())
        async with database.session() as connection:
            await connection.execute("INSERT INTO queues VALUES ('default', 'default', true, now(), 'test')")
        assert await b.executions.claim([(created.run_id, 1)]) == []
    assert (await run_row(database, created.run_id))["state"] == "pending"


async def test_what_was_claimed_is_told_when_the_others_cannot_be_sent_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> str:
        raise StoreUnavailable("the connection broke")

    async with bench(database) as b:
        paused = await b.intake.create(new_task(queue="paused"))
        created = await b.intake.create(new_task())
        async with database.session() as connection:
            await connection.execute("INSERT INTO queues VALUES ('default', 'paused', true, now(), 'test')")
        monkeypatch.setattr(b.executions._claims, "execute", broken)
        claims = await b.executions.claim([(created.run_id, 1), (paused.run_id, 1)])
    assert [claim.run_id for claim in claims] == [created.run_id]
    assert (await run_row(database, paused.run_id))["state"] == "queued"


async def test_a_failure_and_a_death_reported_together_are_both_recorded(database: Database) -> None:
    async with bench(database) as b:
        claims = [await b.claim(await b.intake.create(new_task())) for _ in range(2)]
        reports = [outcome(claim, state) for claim, state in zip(claims, ("failed", "dead_letter"), strict=True)]
        assert [answer.state for answer in await b.executions._flush(reports)] == ["failed", "dead_letter"]
    async with database.session() as connection:
        assert await connection.fetchval("SELECT count(*) FROM attempts") == 2
        assert [row["run_id"] for row in await connection.fetch("SELECT run_id FROM dead_letter_tasks")] == [
            claims[1].run_id
        ]


async def test_without_redis_the_most_urgent_waiting_runs_are_claimed_first(database: Database) -> None:
    async with bench(database) as b:
        for name, priority in (("low", 1), ("high", 9), ("middle", 5)):
            await b.intake.create(new_task(name, priority=priority))
        await b.intake.create(new_task("elsewhere", queue="other"))
        assert await b.executions.claim_waiting(["default"], 2, older_than=3600) == []
        claims = await b.executions.claim_waiting(["default"], 2, older_than=0)
    assert {b'"high"' in c.spec or b'"middle"' in c.spec for c in claims} == {True}
    assert len(claims) == 2


async def test_an_outcome_under_an_old_fence_changes_nothing_and_says_so(database: Database) -> None:
    async with bench(database) as b:
        claim = await b.claim(await b.intake.create(new_task()))
        stale = await b.executions.finish(outcome(claim, fence=claim.fence - 1))
        assert not stale.applied
        row = await run_row(database, claim.run_id)
        assert (row["state"], row["fence"]) == ("running", claim.fence)


async def test_reporting_the_same_outcome_twice_is_applied_once_and_answered_twice(database: Database) -> None:
    async with bench(database) as b:
        claim = await b.claim(await b.intake.create(new_task()))
        first = await b.executions.finish(outcome(claim))
        second = await b.executions.finish(outcome(claim))
        other = await b.executions.finish(outcome(claim, "failed"))
        async with database.session() as connection:
            attempts = await connection.fetch("SELECT outcome FROM attempts")
    assert (first.applied, first.state) == (True, "completed")
    assert second.applied
    assert not other.applied
    assert [row["outcome"] for row in attempts] == ["completed"]


async def test_a_retry_waits_in_pending_with_its_failure_counted(database: Database) -> None:
    async with bench(database) as b:
        claim = await b.claim(await b.intake.create(new_task()))
        await b.executions.finish(outcome(claim, "pending", retry_in=60))
        row = await run_row(database, claim.run_id)
    assert (row["state"], row["failures"], row["worker_id"], row["finished_at"]) == ("pending", 1, None, None)
    assert 55 < (row["run_at"] - claim.started_at).total_seconds() < 65


async def test_a_dead_letter_stands_as_soon_as_the_run_is_one(database: Database) -> None:
    async with bench(database) as b:
        claim = await b.claim(await b.intake.create(new_task("doomed")))
        await b.executions.finish(outcome(claim, "dead_letter", reason="exit:7", exit_code=7))
        async with database.session() as connection:
            letter = await connection.fetchrow("SELECT * FROM dead_letter_tasks")
    assert (letter["run_id"], letter["task_name"], letter["reason"], letter["state"]) == (
        claim.run_id,
        "doomed",
        "exit:7",
        "open",
    )


@pytest.mark.parametrize(
    ("reported", "becomes"),
    [("failed", "cancelled"), ("pending", "cancelled"), ("dead_letter", "cancelled"), ("completed", "completed")],
)
async def test_a_cancel_that_lost_the_race_to_a_claim_wins_over_failure_and_retry(
    database: Database, reported: str, becomes: str
) -> None:
    async with bench(database) as b:
        claim = await b.claim(await b.intake.create(new_task()))
        async with database.session() as connection:
            await connection.execute("UPDATE runs SET cancel_requested = true WHERE id = $1", claim.run_id)
        finished = await b.executions.finish(outcome(claim, reported))
        row = await run_row(database, claim.run_id)
        async with database.session() as connection:
            letters = await connection.fetchval("SELECT count(*) FROM dead_letter_tasks")
    assert (finished.state, row["state"], letters) == (becomes, becomes, 0)
    assert row["finished_at"] is not None


async def test_a_cancel_that_commits_while_the_outcome_waits_for_its_lock_is_seen(database: Database) -> None:
    async with bench(database) as b:
        claim = await b.claim(await b.intake.create(new_task()))
        async with anyio.create_task_group() as group, database.session() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("UPDATE runs SET cancel_requested = true WHERE id = $1", claim.run_id)
            group.start_soon(b.executions.finish, outcome(claim, "pending", retry_in=60))
            await until(lambda: waiting_for_locks(database), what="the outcome waits for the lock")
            await transaction.commit()
        assert (await run_row(database, claim.run_id))["state"] == "cancelled"


async def test_the_last_upstream_sets_its_dependent_free_in_the_same_commit(database: Database) -> None:
    first, second = new_task("first"), new_task("second")
    last = new_task("last", [after(first), after(second, "completion")])
    async with bench(database) as b:
        created = await b.intake.create_batch([[last, first, second]])
        assert created[0].queued is None
        for upstream in created[1:]:
            await b.executions.finish(outcome(await b.claim(upstream)))
    assert [queued.run_id for settled in b.settled for queued in settled.queued] == [last.run_id]
    assert (await run_row(database, last.run_id))["state"] == "queued"


async def test_in_a_lane_without_room_the_dependent_waits_for_the_leader(database: Database) -> None:
    first = new_task("first")
    last = new_task("last", [after(first)])
    async with bench(database) as b:
        b.open_lanes = []
        created = await b.intake.create_batch([[first, last]])
        await b.executions.finish(outcome(await b.claim(created[0])))
    assert [(settled.queued, settled.ready) for settled in b.settled] == [([], 1)]
    row = await run_row(database, last.run_id)
    assert (row["state"], row["unmet"]) == ("pending", 0)


async def test_two_upstreams_that_end_at_once_count_down_twice(database: Database) -> None:
    """Two statements decrement the same dependent; the second waits for the first and judges the row as it then is."""
    upstreams = [new_task(str(n)) for n in range(20)]
    last = new_task("last", [after(upstream) for upstream in upstreams])
    async with bench(database) as b:
        created = await b.intake.create_batch([[*upstreams, last]])
        workers = [
            Executions(
                database, IDS, await add_worker(database), lanes_open=lambda: ["default"], on_settled=b._on_settled
            )
            for _ in range(4)
        ]
        claims = [
            (workers[n % 4], (await workers[n % 4].claim([(c.run_id, 1)]))[0]) for n, c in enumerate(created[:20])
        ]
        async with anyio.create_task_group() as group, anyio.create_task_group() as reports:
            for worker in workers:
                group.start_soon(worker.run)
            for worker, claim in claims:
                reports.start_soon(worker.finish, outcome(claim))
            while (await run_row(database, last.run_id))["state"] != "queued":
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    assert sum(len(settled.queued) for settled in b.settled) == 1


@pytest.mark.parametrize(
    ("condition", "ends", "becomes"),
    [
        ("success", "completed", "queued"),
        ("success", "failed", "skipped"),
        ("success", "cancelled", "skipped"),
        ("failure", "failed", "queued"),
        ("failure", "dead_letter", "queued"),
        ("failure", "completed", "skipped"),
        ("completion", "failed", "queued"),
        ("completion", "cancelled", "queued"),
    ],
)
async def test_what_each_condition_makes_of_each_end(
    database: Database, condition: str, ends: str, becomes: str
) -> None:
    """Once for a dependent that waits, once for one that is created after the fact: the two rules agree."""
    upstream = new_task("upstream")
    waiting = new_task("waiting", [after(upstream, condition)])
    late = new_task("late", [after(upstream, condition)])
    async with bench(database) as b:
        created = await b.intake.create_batch([[upstream, waiting]])
        await b.executions.finish(outcome(await b.claim(created[0]), ends))
        await b.intake.create(late)
    assert (await run_row(database, waiting.run_id))["state"] == becomes
    expected = "pending" if becomes == "queued" else "skipped"
    row = await run_row(database, late.run_id)
    assert (row["state"], row["unmet"]) == (expected, 0)


async def test_a_skip_travels_down_the_whole_chain(database: Database) -> None:
    chain = [new_task("0")]
    for n in range(1, 5):
        chain.append(new_task(str(n), [after(chain[-1])]))
    cleanup = new_task("cleanup", [after(chain[-1], "completion")])
    async with bench(database) as b:
        created = await b.intake.create_batch([[*chain, cleanup]])
        await b.executions.finish(outcome(await b.claim(created[0]), "failed"))
    states = [(await run_row(database, task.run_id))["state"] for task in [*chain, cleanup]]
    assert states == ["failed", "skipped", "skipped", "skipped", "skipped", "queued"]


async def test_a_task_of_a_later_format_is_left_to_workers_that_know_it(database: Database) -> None:
    assert STATEMENTS["claim"].count(f"integer, 1) <= {FORMAT}") == 1
    async with bench(database) as b:
        later = await b.intake.create(new_task("later", priority=9))
        known = await b.intake.create(new_task("known"))
        async with database.session() as connection:
            await connection.execute(
                "UPDATE tasks SET spec = spec || jsonb_build_object('format', $2::int) WHERE id = $1",
                later.task_id,
                FORMAT + 1,
            )
        assert await b.executions.claim([(later.run_id, 1)]) == []
        claims = await b.executions.claim_waiting(["default"], 1, older_than=0)
    assert [claim.run_id for claim in claims] == [known.run_id]
    row = await run_row(database, later.run_id)
    assert (row["state"], row["dispatch_seq"]) == ("queued", 1)
