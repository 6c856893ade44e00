from __future__ import annotations

from typing import Any
from uuid import UUID

import anyio
import pytest

from scheduler.domain.observation import SeenLease
from scheduler.domain.run import Claim
from scheduler.domain.task import Retry, RetryRule
from scheduler.domain.term import TermLost
from scheduler.store.database import Database
from scheduler.store.reaping import Reaping
from tests.support.locks import waiting_for_locks
from tests.support.recurring import lead
from tests.support.rows import IDS, Bench, add_worker, after, bench, new_task, outcome, run_row
from tests.support.waiting import until


async def execute(made: Bench, *tasks: Any) -> list[Claim]:
    """Create the tasks and claim their runs."""
    return [await made.claim(await made.intake.create(task)) for task in tasks]


async def worker_state(database: Database, worker_id: UUID) -> str:
    async with database.session() as connection:
        return await connection.fetchval("SELECT state FROM workers WHERE id = $1", worker_id)


async def test_a_run_lost_alone_waits_for_another_worker_and_its_attempt_is_recorded(database: Database) -> None:
    epoch = await lead(database)
    async with bench(database) as made:
        [claim] = await execute(made, new_task())
        reaped = await Reaping(database, IDS).reap(made.worker_id, renewal=0, epoch=epoch)
        assert reaped.applied
        assert reaped.promotable
        run = await run_row(database, claim.run_id)
        assert (run["state"], run["losses"], run["suspect"], run["worker_id"]) == ("pending", 1, False, None)
        async with database.session() as connection:
            attempt = await connection.fetchrow("SELECT * FROM attempts WHERE run_id = $1", claim.run_id)
        assert (attempt["outcome"], attempt["fence"], attempt["attempt"]) == ("lost", claim.fence, 1)
        assert await worker_state(database, made.worker_id) == "dead"


async def test_an_outcome_that_comes_after_the_reaping_changes_nothing(database: Database) -> None:
    async with bench(database) as made:
        [claim] = await execute(made, new_task())
        await Reaping(database, IDS).reap(made.worker_id, renewal=0, epoch=await lead(database))
        assert not (await made.executions.finish(outcome(claim))).applied
        assert (await run_row(database, claim.run_id))["state"] == "pending"


async def test_a_renewal_that_came_between_saves_the_worker(database: Database) -> None:
    epoch = await lead(database)
    async with bench(database) as made:
        [claim] = await execute(made, new_task())
        async with database.session() as connection:
            await connection.execute("UPDATE worker_leases SET renewal = renewal + 1")
        reaped = await Reaping(database, IDS).reap(made.worker_id, renewal=0, epoch=epoch)
        assert not reaped.applied
        assert (await run_row(database, claim.run_id))["state"] == "running"
        assert await worker_state(database, made.worker_id) == "live"


async def test_a_renewal_that_is_under_way_saves_the_worker(database: Database) -> None:
    epoch = await lead(database)
    worker_id = await add_worker(database)
    answers = []

    async def reap() -> None:
        answers.append(await Reaping(database, IDS).reap(worker_id, renewal=0, epoch=epoch))

    async with database.session() as renewing, anyio.create_task_group() as group, renewing.transaction():
        await renewing.execute("UPDATE worker_leases SET renewal = renewal + 1 WHERE worker_id = $1", worker_id)
        group.start_soon(reap)
        await until(lambda: waiting_for_locks(database))
    assert not answers[0].applied


async def test_a_renewal_that_waits_for_the_reaping_finds_no_lease(database: Database) -> None:
    worker_id = await add_worker(database)
    tags = []

    async def renew() -> None:
        async with database.session() as connection:
            tags.append(
                await connection.execute(
                    "UPDATE worker_leases l SET renewal = renewal + 1 FROM workers w"
                    " WHERE l.worker_id = $1 AND w.id = l.worker_id AND w.state = 'live'",
                    worker_id,
                )
            )

    async with anyio.create_task_group() as group, database.transaction() as executor:
        await executor.fetchval("end_lease", worker_id, 0)
        await executor.fetchval("bury_worker", worker_id, "test")
        group.start_soon(renew)
        await until(lambda: waiting_for_locks(database))
    assert tags == ["UPDATE 0"]


async def test_a_claim_that_is_under_way_is_moved_too(database: Database) -> None:
    """It commits after the reaping has begun; what it claimed must not stay with the dead worker."""
    epoch = await lead(database)
    async with bench(database) as made:
        created = await made.intake.create(new_task())
        assert created.queued is not None
        run_id, seq = created.queued.run_id, created.queued.seq
        reaped = []

        async def reap() -> None:
            reaped.append(await Reaping(database, IDS).reap(made.worker_id, renewal=0, epoch=epoch))

        async with anyio.create_task_group() as group, database.transaction() as executor:
            assert len(await executor.fetch("claim", made.worker_id, [run_id], [seq], run_id, run_id)) == 1
            group.start_soon(reap)
            await until(lambda: waiting_for_locks(database))
        assert reaped[0].states == {"pending": 1}
        assert (await run_row(database, run_id))["state"] == "pending"


async def test_a_dead_worker_claims_nothing(database: Database) -> None:
    async with bench(database) as made:
        created = await made.intake.create(new_task())
        assert created.queued is not None
        await Reaping(database, IDS).reap(made.worker_id, renewal=0, epoch=await lead(database))
        assert await made.executions.claim([(created.queued.run_id, created.queued.seq)]) == []


async def test_runs_that_die_together_become_suspects_and_are_not_charged(database: Database) -> None:
    async with bench(database) as made:
        claims = await execute(made, new_task(), new_task())
        reaped = await Reaping(database, IDS).reap(made.worker_id, renewal=0, epoch=await lead(database))
        assert reaped.states == {"pending": 2}
        for claim in claims:
            run = await run_row(database, claim.run_id)
            assert (run["state"], run["losses"], run["suspect"]) == ("pending", 0, True)


async def test_the_last_loss_writes_a_dead_letter_and_moves_the_dependents(database: Database) -> None:
    async with bench(database) as made:
        upstream = new_task("upstream")
        [claim] = await execute(made, upstream)
        cleanup = await made.intake.create(new_task("cleanup", [after(upstream, "failure")], straight=False))
        report = await made.intake.create(new_task("report", [after(upstream)], straight=False))
        async with database.session() as connection:
            await connection.execute("UPDATE runs SET losses = 2 WHERE id = $1", claim.run_id)
        reaped = await Reaping(database, IDS).reap(made.worker_id, renewal=0, epoch=await lead(database))
        assert reaped.states == {"dead_letter": 1}
        assert reaped.settled.ready == 1
        assert (await run_row(database, claim.run_id))["reason"] == "lost"
        assert (await run_row(database, cleanup.run_id))["unmet"] == 0
        assert (await run_row(database, report.run_id))["state"] == "skipped"
        async with database.session() as connection:
            grave = await connection.fetchrow("SELECT * FROM dead_letter_tasks")
        assert (grave["run_id"], grave["task_name"], grave["losses"], grave["state"]) == (
            claim.run_id, "upstream", 3, "open",
        )  # fmt: skip


@pytest.mark.parametrize(("on_lost", "state"), [("fail", "failed"), ("dead_letter", "dead_letter")])
async def test_on_lost_decides(database: Database, on_lost: str, state: str) -> None:
    async with bench(database) as made:
        [claim] = await execute(made, new_task(on_lost=on_lost))
        await Reaping(database, IDS).reap(made.worker_id, renewal=0, epoch=await lead(database))
        assert (await run_row(database, claim.run_id))["state"] == state


@pytest.mark.parametrize(
    ("on_lost", "action", "state"),
    [("retry", "fail", "failed"), ("retry", "dead_letter", "dead_letter"), ("fail", "retry", "pending")],
)
async def test_a_retry_rule_that_names_losses_decides_before_on_lost(
    database: Database, on_lost: str, action: Any, state: str
) -> None:
    rules = [RetryRule(action="fail"), RetryRule(reasons=["oom", "lost"], action=action)]
    async with bench(database) as made:
        [claim] = await execute(made, new_task(on_lost=on_lost, retry=Retry(rules=rules)))
        await Reaping(database, IDS).reap(made.worker_id, renewal=0, epoch=await lead(database))
        assert (await run_row(database, claim.run_id))["state"] == state


async def test_a_run_whose_rules_a_later_release_has_written_is_moved_all_the_same(database: Database) -> None:
    async with bench(database) as made:
        [claim] = await execute(made, new_task(on_lost="fail"))
        async with database.session() as connection:
            rules = """'{"retry": {"rules": [{"hosts": ["a"], "action": "elsewhere"}]}}'"""
            await connection.execute(f"UPDATE tasks SET spec = spec || {rules}")
        await Reaping(database, IDS).reap(made.worker_id, renewal=0, epoch=await lead(database))
        assert (await run_row(database, claim.run_id))["state"] == "failed"


async def test_a_run_that_was_to_be_cancelled_is_cancelled(database: Database) -> None:
    async with bench(database) as made:
        [claim] = await execute(made, new_task())
        async with database.session() as connection:
            await connection.execute("UPDATE runs SET cancel_requested = true")
        await Reaping(database, IDS).reap(made.worker_id, renewal=0, epoch=await lead(database))
        assert (await run_row(database, claim.run_id))["state"] == "cancelled"


async def test_a_deposed_leader_reaps_nobody(database: Database) -> None:
    epoch = await lead(database)
    async with bench(database) as made:
        [claim] = await execute(made, new_task())
        await lead_after(database)
        with pytest.raises(TermLost):
            await Reaping(database, IDS).reap(made.worker_id, renewal=0, epoch=epoch)
        assert (await run_row(database, claim.run_id))["state"] == "running"


async def test_a_guard_needs_no_term_and_reaping_twice_is_harmless(database: Database) -> None:
    async with bench(database) as made:
        [claim] = await execute(made, new_task())
        reaping = Reaping(database, IDS)
        assert (await reaping.reap(made.worker_id, renewal=None, epoch=None)).applied
        assert not (await reaping.reap(made.worker_id, renewal=None, epoch=None)).applied
        assert (await run_row(database, claim.run_id))["losses"] == 1


async def test_runs_left_with_a_dead_worker_are_found(database: Database) -> None:
    epoch = await lead(database)
    reaping = Reaping(database, IDS)
    async with bench(database) as made:
        [claim] = await execute(made, new_task())
        async with database.session() as connection:
            await connection.execute("UPDATE workers SET state = 'dead', ended_at = now()")
        assert await reaping.orphans() == [made.worker_id]
        assert (await reaping.reap(made.worker_id, renewal=None, epoch=epoch)).states == {"pending": 1}
        assert await reaping.orphans() == []
        assert (await run_row(database, claim.run_id))["state"] == "pending"


async def test_only_live_workers_have_renewals(database: Database) -> None:
    live, gone = await add_worker(database), await add_worker(database)
    reaping = Reaping(database, IDS)
    await reaping.reap(gone, renewal=0, epoch=None)
    assert await reaping.leases() == {live: SeenLease(0, 1.5)}


async def lead_after(database: Database) -> None:
    """Let somebody else take the term."""
    await lead(database)
