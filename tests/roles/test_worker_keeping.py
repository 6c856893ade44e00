"""Writing down what a command prints, while it goes on printing."""

from __future__ import annotations

from pathlib import Path

import anyio

from scheduler.domain.task import decode_spec
from scheduler.store.checkpoints import Checkpoints
from scheduler.store.database import Database
from scheduler.store.outputs import Outputs
from scheduler.worker.attempt import Attempt
from scheduler.worker.capture import Capture
from scheduler.worker.identity import current_identity
from scheduler.worker.keeping import Keeper
from scheduler.worker.scratch import Scratch
from tests.broker.support import connected
from tests.support import until
from tests.support.locks import waiting_for_locks
from tests.support.rows import bench, new_task


async def test_what_is_printed_while_the_oldest_is_deleted_makes_more_of_it_too_old(
    database: Database, redis_url: str, tmp_path: Path
) -> None:
    outputs = Outputs(database)
    scratch = Scratch(str(tmp_path), current_identity().uid)
    async with connected(redis_url) as broker, bench(database) as desk, anyio.create_task_group() as group:
        keeper = Keeper(outputs, Checkpoints(database), scratch, broker)
        group.start_soon(outputs.run)
        claim = await desk.claim(await desk.intake.create(new_task()))
        attempt = Attempt(claim, decode_spec(claim.spec))
        capture = attempt.capture = Capture(1000)
        for stream in ("stdout", "stderr") * 5:
            capture.feed(stream, b"." * 100)
        await keeper.keep_live(attempt)
        async with database.transaction() as transaction:
            await transaction.target.execute("SELECT FROM output_chunks FOR UPDATE")
            capture.feed("stdout", b"+" * 100)
            group.start_soon(keeper.keep_live, attempt)
            await until(lambda: waiting_for_locks(database))
            capture.feed("stderr", b"-" * 400)
        await keeper.keep_rest(attempt, checkpoint=False)
        async with database.session() as connection:
            kept = await connection.fetchval("SELECT sum(length(data)) FROM output_chunks")
        assert kept <= 1000
        group.cancel_scope.cancel()
    scratch.close()
