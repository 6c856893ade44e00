"""The table of runs itself refuses what no transition makes."""

from __future__ import annotations

import asyncpg
import pytest

from scheduler.store.database import Database
from tests.support.rows import bench, new_task

pytestmark = pytest.mark.anyio

_WORKER = "worker_id = gen_random_uuid()"
_ENDED = "finished_at = now()"


async def test_a_state_goes_with_its_columns_and_with_no_others(database: Database) -> None:
    refused = [
        "state = 'lost'",
        "state = 'running'",
        "state = 'completed'",
        _WORKER,
        _ENDED,
        f"state = 'running', {_WORKER}, {_ENDED}",
        f"state = 'failed', {_WORKER}, {_ENDED}",
        f"state = 'running', {_ENDED}",
        f"state = 'completed', {_WORKER}",
        "state = 'queued', unmet = 1",
        "state = 'queued', held = true",
        "unmet = -1",
        f"state = 'skipped', {_ENDED}, unmet = -1",
        "priority = 10",
        "priority = -1",
        "trigger = 'whim'",
    ]
    accepted = ["state = 'pending', unmet = 1", "state = 'pending', held = true", f"state = 'running', {_WORKER}"]
    accepted += [f"state = '{end}', {_ENDED}" for end in ("completed", "failed", "cancelled", "skipped", "dead_letter")]
    async with bench(database) as b:
        await b.intake.create(new_task())
    async with database.session() as connection:
        for change in refused:
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.execute(f"UPDATE runs SET {change}")
        for change in accepted:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(f"UPDATE runs SET {change}")
            await transaction.rollback()
