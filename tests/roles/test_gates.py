"""Limits on what runs share by a key, kept by real leaders over a real database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import anyio
import pytest

from scheduler.broker import Broker
from scheduler.control import gatekeep
from scheduler.control.gatekeep import Gatekeeper
from scheduler.control.promote import Promoter
from scheduler.domain.gates import FAIR_WINDOW, Contender, in_turn
from scheduler.domain.run import Claim
from scheduler.domain.task import Concurrency, RateLimit
from scheduler.domain.term import TermLost
from scheduler.store.database import Database
from scheduler.store.gates import Gates
from tests.support.locks import waiting_for_locks
from tests.support.recurring import lead, leading, minute, recurring, scheduler
from tests.support.rows import Bench, after, bench, new_task, outcome
from tests.support.waiting import until

KEY = ("default", "k")


@pytest.fixture
async def promoter(database: Database, broker: Broker) -> Promoter:
    return Promoter(leading(database, broker, await lead(database), poll=60.0))


async def create(made: Bench, count: int, **fields: Any) -> list[UUID]:
    ids = []
    for _ in range(count):
        created = await made.intake.create(new_task(straight=False, **fields))
        assert created.run_id is not None
        ids.append(created.run_id)
    return ids


async def create_many(made: Bench, count: int, **fields: Any) -> list[UUID]:
    created = await made.intake.create_batch([[new_task(straight=False, **fields) for _ in range(count)]])
    return [task.run_id for task in created if task.run_id is not None]


async def states(database: Database, run_ids: Sequence[UUID]) -> list[str]:
    async with database.session() as connection:
        rows = await connection.fetch("SELECT id, state FROM runs WHERE id = ANY($1::uuid[]) ORDER BY id", run_ids)
    return [row["state"] for row in rows]


async def last_lock(database: Database, run_id: UUID) -> str:
    async with database.session() as connection:
        return await connection.fetchval("SELECT xmax::text FROM runs WHERE id = $1", run_id)


async def reasons(database: Database, run_ids: Sequence[UUID]) -> list[str | None]:
    async with database.session() as connection:
        rows = await connection.fetch("SELECT id, reason FROM runs WHERE id = ANY($1::uuid[]) ORDER BY id", run_ids)
    return [row["reason"] for row in rows]


async def claim(made: Bench, run_id: UUID) -> Claim:
    async with made.database.session() as connection:
        seq = await connection.fetchval("SELECT dispatch_seq FROM runs WHERE id = $1", run_id)
    (claimed,) = await made.executions.claim([(run_id, seq)])
    return claimed


def one(most: int = 1, on_conflict: Any = "queue") -> dict[str, Any]:
    return {"concurrency": Concurrency(key="k", max_runs=most, on_conflict=on_conflict)}


async def test_the_next_run_of_a_key_is_queued_when_the_one_before_has_ended(
    database: Database, promoter: Promoter
) -> None:
    async with bench(database) as made:
        runs = await create(made, 3, **one())
        await promoter.step()
        await promoter.step()
        assert await states(database, runs) == ["queued", "pending", "pending"]
        first = await claim(made, runs[0])
        await promoter.step()
        assert await states(database, runs) == ["running", "pending", "pending"]
        await made.executions.finish(outcome(first))
        assert made.settled[-1].ready, "the leader is not told that a place is free"
        await promoter.step()
        assert await states(database, runs) == ["completed", "queued", "pending"]


async def test_a_run_that_waits_for_its_retry_leaves_its_place_and_takes_another_one_later(
    database: Database, promoter: Promoter
) -> None:
    async with bench(database) as made:
        runs = await create(made, 2, **one())
        await promoter.step()
        first = await claim(made, runs[0])
        await made.executions.finish(outcome(first, "pending", attempt_outcome="failed"))
        await promoter.step()
        assert sorted(await states(database, runs)) == ["pending", "queued"]
        await promoter.step()
        assert sorted(await states(database, runs)) == ["pending", "queued"]


async def test_blocked_runs_hold_up_neither_plain_ones_nor_those_of_other_keys(
    database: Database, promoter: Promoter
) -> None:
    async with bench(database) as made:
        blocked = await create(made, 30, priority=9, **one())
        other = await create(made, 1, concurrency=Concurrency(key="other"))
        plain = await create(made, 2)
        await promoter.step()
        await promoter.step()
        assert (await states(database, blocked)).count("queued") == 1
        assert await states(database, other + plain) == ["queued"] * 3


async def test_a_dependent_that_becomes_ready_does_not_slip_past_its_gate(
    database: Database, promoter: Promoter
) -> None:
    async with bench(database) as made:
        await create(made, 1, **one())
        await promoter.step()
        upstream = new_task(straight=True)
        dependent = new_task(edges=[after(upstream)], **one())
        created = await made.intake.create_batch([[upstream, dependent]])
        await made.executions.finish(outcome(await made.claim(created[0])))
        assert dependent.run_id is not None
        assert await states(database, [dependent.run_id]) == ["pending"]
        await promoter.step()
        assert await states(database, [dependent.run_id]) == ["pending"]


async def test_the_newest_is_cancelled_or_the_oldest_gives_way_as_the_rule_says(
    database: Database, promoter: Promoter
) -> None:
    async with bench(database) as made:
        keep = await create(made, 3, **one(1, "cancel_newest"))
        await promoter.step()
        assert await states(database, keep) == ["queued", "cancelled", "cancelled"]
        assert (await reasons(database, keep))[1:] == ["concurrency", "concurrency"]
        give = await create(made, 1, concurrency=Concurrency(key="g", on_conflict="cancel_running"))
        await promoter.step()
        old = await claim(made, give[0])
        new = await create(made, 1, concurrency=Concurrency(key="g", on_conflict="cancel_running"))
        await promoter.step()
        assert await states(database, give + new) == ["running", "pending"]
        async with database.session() as connection:
            assert await connection.fetchval("SELECT cancel_requested FROM runs WHERE id = $1", give[0])
        await made.executions.finish(outcome(old, "cancelled"))
        await promoter.step()
        assert await states(database, give + new) == ["cancelled", "queued"]


async def test_the_retry_of_an_old_run_does_not_end_the_newer_one_that_replaces_it(
    database: Database, promoter: Promoter
) -> None:
    async with bench(database) as made:
        (old,) = await create(made, 1, **one(1, "cancel_running"))
        await promoter.step()
        failed = outcome(await claim(made, old), "pending", attempt_outcome="failed", retry_in=3600.0)
        await made.executions.finish(failed)
        (new,) = await create(made, 1, **one(1, "cancel_running"))
        await promoter.step()
        await claim(made, new)
        async with database.session() as connection:
            await connection.execute("UPDATE runs SET run_at = dts_now() WHERE id = $1", old)
        await promoter.step()
        assert await states(database, [old, new]) == ["cancelled", "running"]
        assert await reasons(database, [old]) == ["concurrency"]
        async with database.session() as connection:
            assert not await connection.fetchval("SELECT cancel_requested FROM runs WHERE id = $1", new)


async def test_no_more_start_in_the_time_of_a_rate_than_it_says_retries_included(
    database: Database, promoter: Promoter
) -> None:
    async with bench(database) as made:
        runs = await create(made, 4, rate_limit=RateLimit(key="r", n=2, per=3600.0))
        await promoter.step()
        await promoter.step()
        assert await states(database, runs) == ["queued", "queued", "pending", "pending"]
        # One starts, fails, and starts again: two starts, and one that is queued to start is a third.
        first = await claim(made, runs[0])
        await made.executions.finish(outcome(first, "pending", attempt_outcome="failed"))
        await promoter.step()
        assert await states(database, runs) == ["pending", "queued", "pending", "pending"]
        second = await claim(made, runs[1])
        await made.executions.finish(outcome(second))
        await promoter.step()
        assert await states(database, runs) == ["pending", "completed", "pending", "pending"]
        async with database.session() as connection:
            await connection.execute(
                "UPDATE runs SET started_at = started_at - interval '2 hours' WHERE id = $1", runs[1]
            )
        await promoter.step()
        assert sorted(await states(database, runs)) == ["completed", "pending", "pending", "queued"]


async def test_a_rate_says_when_its_next_place_is_free(database: Database, broker: Broker) -> None:
    promoter = Promoter(leading(database, broker, await lead(database), poll=7200.0))
    async with bench(database) as made:
        runs = await create(made, 2, rate_limit=RateLimit(key="r", n=1, per=3600.0))
        await promoter.step()
        await claim(made, runs[0])
        assert 3500 < await promoter.step() <= 3600


async def test_a_run_with_a_fairness_key_waits_neither_for_other_gates_nor_for_less_urgent_ones(
    database: Database, promoter: Promoter
) -> None:
    async with bench(database) as made:
        crowd = await create_many(made, 200, priority=1, **one(500))
        await promoter.step()
        assert (await states(database, crowd)).count("queued") == 200
        patient = await create_many(made, FAIR_WINDOW + 1, priority=0, fairness_key="a")
        await promoter.step()
        assert (await states(database, patient)).count("queued") == FAIR_WINDOW
        urgent = await create(made, 1, priority=9, fairness_key="a")
        await promoter.step()
        assert await states(database, urgent) == ["queued"]


async def test_a_run_that_waits_for_a_full_fair_window_is_left_alone_until_there_is_room(
    database: Database, promoter: Promoter
) -> None:
    async with bench(database) as made:
        runs = await create_many(made, FAIR_WINDOW + 1, fairness_key="a")
        while await promoter.step() == 0.0:
            pass
        *queued, last = runs
        assert await states(database, runs) == ["queued"] * FAIR_WINDOW + ["pending"]
        lock = await last_lock(database, last)
        delays = [await promoter.step() for _ in range(10)]
        assert await last_lock(database, last) == lock
        assert min(delays) < 10
        assert delays[-1] > 25
        await claim(made, queued[0])
        assert await promoter.step() == 0.0
        assert await states(database, [last]) == ["queued"]


async def test_no_fairness_key_has_a_second_run_under_way_before_each_has_one_however_many_there_are(
    database: Database, promoter: Promoter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatekeep, "_PAGE", 50)
    late = 12
    async with bench(database) as made:
        for number in range(FAIR_WINDOW + late):
            await create_many(made, 3, fairness_key=str(number))
        for begun in range(late + 1):
            while await promoter.step() == 0.0:
                pass
            assert sorted((await under_way(database)).values()) == [1] * (FAIR_WINDOW + begun)
            await claim(made, await first_queued(database))


async def under_way(database: Database) -> dict[str, int]:
    """How many runs of each fairness key are queued or running."""
    async with database.session() as connection:
        rows = await connection.fetch(
            "SELECT fairness_key, count(*) FROM runs JOIN gates USING (gate) WHERE state <> 'pending' GROUP BY 1"
        )
    return dict(rows)


async def first_queued(database: Database) -> UUID:
    async with database.session() as connection:
        return await connection.fetchval("SELECT id FROM runs WHERE state = 'queued' ORDER BY id LIMIT 1")


async def test_the_most_urgent_run_of_a_shared_key_goes_first_wherever_it_waits(
    database: Database, promoter: Promoter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatekeep, "_PAGE", 1)
    async with bench(database) as made:
        for number in range(3):
            await create(made, 1, rate_limit=RateLimit(key=str(number), n=1, per=60.0), **one())
        async with database.session() as connection:
            *_, last = await connection.fetch("SELECT id FROM runs ORDER BY gate")
            await connection.execute("UPDATE runs SET priority = 9 WHERE id = $1", last["id"])
        while await promoter.step() == 0.0:
            pass
        assert await first_queued(database) == last["id"]


async def test_contenders_that_all_have_room_are_not_sifted_on_every_page(
    database: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sifted: list[int] = []

    def counting(contenders: Sequence[Contender], *rest: Any) -> list[Contender]:
        sifted.append(len(contenders))
        return in_turn(contenders, *rest)

    monkeypatch.setattr(gatekeep, "_PAGE", 1)
    monkeypatch.setattr(gatekeep, "_MANY", 2)
    monkeypatch.setattr(gatekeep, "in_turn", counting)
    promoter = Promoter(leading(database, broker, await lead(database), poll=60.0))
    async with bench(database) as made:
        for number in range(16):
            await create(made, 1, rate_limit=RateLimit(key=str(number), n=1, per=60.0))
        while len(await queued_ids(database)) < 16:
            await promoter.step()
    assert sifted[:4] == [3, 7, 15, 16]


async def queued_ids(database: Database) -> list[UUID]:
    async with database.session() as connection:
        return [row["id"] for row in await connection.fetch("SELECT id FROM runs WHERE state = 'queued'")]


async def test_a_full_fair_window_does_not_save_a_run_that_its_key_cancels(
    database: Database, promoter: Promoter
) -> None:
    async with bench(database) as made:
        first = await create(made, 1, fairness_key="a", **one(1, "cancel_newest"))
        await create_many(made, FAIR_WINDOW, fairness_key="a")
        await promoter.step()
        newest = await create(made, 1, fairness_key="a", **one(1, "cancel_newest"))
        await promoter.step()
        assert await states(database, first + newest) == ["queued", "cancelled"]


async def test_a_scheduled_run_stands_behind_its_gate_too(
    database: Database, database_url: str, redis_url: str
) -> None:
    async with bench(database) as made, scheduler(database_url, redis_url):
        held = (await create(made, 1, **one()))[0]

        async def queued(run_id: UUID) -> bool:
            return await states(database, [run_id]) == ["queued"]

        await until(lambda: queued(held))
        task = recurring("limited", "* * * * *", next_fire_at=minute(), **one())
        await made.intake.create_batch([[task]])

        async def fired() -> bool:
            async with database.session() as connection:
                return await connection.fetchval("SELECT count(*) FROM runs WHERE task_id = $1", task.task_id) == 1

        await until(fired)
        assert await Gates(database).active(KEY) == 1


async def test_admissions_at_the_same_time_never_admit_more_than_the_key_has_places(
    database: Database, broker: Broker
) -> None:
    """A statement may go on in the database after its leader has lost the connection and begun again."""
    at_work = leading(database, broker, await lead(database), poll=60.0)
    keepers = [Gatekeeper(at_work, Gates(database)) for _ in range(2)]
    async with bench(database) as made:
        runs = await create(made, 9, **one(3))
        async with anyio.create_task_group() as group, database.session() as connection, connection.transaction():
            await connection.execute("LOCK TABLE runs IN SHARE MODE")  # they can count and choose, but not write
            for keeper in keepers:
                group.start_soon(keeper.step, {("default", 5): 100})

            async def both_wait() -> bool:
                return await waiting_for_locks(database) == 2

            await until(both_wait)
        assert (await states(database, runs)).count("queued") == 3


async def test_a_deposed_leader_admits_nothing_and_its_successor_counts_what_it_left(
    database: Database, broker: Broker
) -> None:
    async with bench(database) as made:
        old = Promoter(leading(database, broker, await lead(database), poll=60.0))
        runs = await create(made, 6, **one(3))
        await old.step()
        await made.executions.finish(outcome(await claim(made, runs[0])))
        await claim(made, runs[1])
        new = Promoter(leading(database, broker, await lead(database), poll=60.0))
        with pytest.raises(TermLost):
            await old.step()
        await new.step()
        assert await states(database, runs[:2]) == ["completed", "running"]
        assert sorted(await states(database, runs[2:])) == ["pending", "pending", "queued", "queued"]


async def test_the_limit_holds_while_leaders_come_and_go(database: Database, database_url: str, redis_url: str) -> None:
    """Workers claim and finish all the time; the leader is replaced in the middle; every snapshot obeys the limit."""
    most, total, seen = 3, 60, [0]
    async with bench(database) as made:
        await create(made, total, **one(most))
        done, handed_over = anyio.Event(), anyio.Event()

        async def watch() -> None:
            while not done.is_set():
                seen.append(await Gates(database).active(KEY))

        async def work() -> None:
            finished = 0
            while finished < total:
                claims = await made.executions.claim_waiting(["default"], most, 0.0)
                if finished >= total // 2:  # what was claimed under one leader is still running under the next
                    await handed_over.wait()
                for claimed in claims:
                    await made.executions.finish(outcome(claimed))
                finished += len(claims)
            done.set()

        async with (
            scheduler(database_url, redis_url, name="one") as first,
            scheduler(database_url, redis_url, name="other") as second,
        ):
            with anyio.fail_after(60):
                async with anyio.create_task_group() as group:
                    await until(lambda: first.leads or second.leads)
                    leader, standby = (first, second) if first.leads else (second, first)
                    group.start_soon(watch)
                    group.start_soon(work)
                    await until(lambda: max(seen) == most)
                    leader.stop.set()
                    await until(lambda: standby.leads)
                    handed_over.set()
                    await done.wait()
    assert max(seen) == most
