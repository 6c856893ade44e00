"""What a worker writes about itself and about its attempts, besides claims and outcomes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from scheduler.store.checkpoints import Checkpoints
from scheduler.store.database import Database
from scheduler.store.outputs import Outputs
from scheduler.store.reaping import Reaping
from scheduler.store.registration import NewWorker, Registration
from scheduler.worker.capture import Piece
from tests.support.rows import IDS, Bench, bench, new_task


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Bench]:
    async with bench(database) as made:
        yield made


def worker() -> NewWorker:
    return NewWorker(
        id=IDS.one(), name="w", host="h", pid=1, queues=["default"], executors=["process"], labels={"gpu": "no"},
        containment="session", slots=4, version="0", lease=15.0,
    )  # fmt: skip


async def test_a_renewal_tells_what_differs(database: Database, desk: Bench) -> None:
    registration = Registration(database)
    first, second = [await desk.claim(await desk.intake.create(new_task())) for _ in range(2)]
    answer = await registration.renew(desk.worker_id, 2, [first.fence, 10**9])
    assert answer is not None
    assert answer.lost == [10**9]
    assert [(run.run_id, run.fence) for run in answer.lacking] == [(second.run_id, second.fence)]
    assert answer.cancel == []
    async with database.session() as connection:
        await connection.execute("UPDATE runs SET cancel_requested = true WHERE id = $1", first.run_id)
        await connection.execute("UPDATE workers SET drain_requested = true")
    answer = await registration.renew(desk.worker_id, 2, [first.fence, second.fence])
    assert answer is not None
    assert (answer.cancel, answer.lost, answer.lacking, answer.drain_requested) == ([first.fence], [], [], True)


async def test_a_worker_that_was_reaped_cannot_renew(database: Database) -> None:
    registration = Registration(database)
    new = worker()
    await registration.register(new)
    assert await registration.renew(new.id, 0, []) is not None
    assert await registration.live_workers() == 1
    await Reaping(database, IDS).reap(new.id, renewal=1, epoch=None)
    assert await registration.renew(new.id, 0, []) is None


async def test_a_worker_that_has_left_cannot_renew_and_one_that_drains_can(database: Database) -> None:
    registration = Registration(database)
    new = worker()
    await registration.register(new)
    await registration.drain(new.id)
    assert await registration.renew(new.id, 0, []) is not None
    assert await registration.live_workers() == 0
    await registration.leave(new.id, "drained")
    assert await registration.renew(new.id, 0, []) is None


async def test_output_is_appended_once_and_trimmed(database: Database) -> None:
    outputs, run_id = Outputs(database), IDS.one()
    async with anyio.create_task_group() as group:
        group.start_soon(outputs.run)
        pieces = [Piece(0, "stdout", b"old"), Piece(3, "stderr", b"new")]
        await outputs.append(run_id, 1, pieces)
        await outputs.append(run_id, 1, pieces)
        await outputs.append(run_id, 1, [Piece(6, "stdout", b"x" * 300_000)])
        group.cancel_scope.cancel()
    await outputs.trim(run_id, 1, 3)
    async with database.session() as connection:
        rows = await connection.fetch("SELECT position, stream, length(data) FROM output_chunks ORDER BY position")
    assert [tuple(row) for row in rows] == [(3, "stderr", 3), (6, "stdout", 300_000)]


async def test_a_checkpoint_takes_the_fence_that_holds_the_run(database: Database, desk: Bench) -> None:
    checkpoints = Checkpoints(database)
    claim = await desk.claim(await desk.intake.create(new_task()))
    assert await checkpoints.load(claim.run_id) is None
    assert await checkpoints.save(claim.run_id, claim.fence, b"1")
    assert await checkpoints.save(claim.run_id, claim.fence, b"2")
    assert not await checkpoints.save(claim.run_id, claim.fence - 1, b"stale")
    assert await checkpoints.load(claim.run_id) == b"2"


async def test_a_registration_whose_answer_was_lost_may_be_repeated_and_revives_nobody(database: Database) -> None:
    registration = Registration(database)
    new = worker()
    for _ in range(2):
        await registration.register(new)
        assert await registration.renew(new.id, 0, []) is not None
    await Reaping(database, IDS).reap(new.id, renewal=None, epoch=None)
    await registration.register(new)
    assert await registration.renew(new.id, 0, []) is None
    assert await Reaping(database, IDS).leases() == {}
