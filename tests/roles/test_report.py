"""What the leader says of itself: a scheduler has no port, so any API shows it."""

from __future__ import annotations

from typing import Any

from scheduler.control.report import depths, parts_that_fail
from scheduler.health import Health
from scheduler.store.database import Database
from scheduler.store.reconcile import Backlog
from tests.roles.api.support import running_api
from tests.support.recurring import scheduler
from tests.support.waiting import until


async def test_a_duty_that_fails_shows_in_every_apis_health_until_it_is_well_again(
    database: Database, database_url: str, redis_url: str
) -> None:
    async with running_api(database, redis_url) as api, scheduler(database_url, redis_url) as leader:

        async def failing() -> Any:
            health = (await api.get("/health/deep")).json
            assert health["status"] == "degraded", "there is no worker"
            return health["leader_parts"]

        async def well() -> bool:
            return leader.leads and await failing() == {}

        await until(well)
        await _sql(database, "ALTER TABLE lanes RENAME TO lanes_away")
        part = await until(lambda: _of(failing, "leader.promote"))
        assert "lanes" in part["detail"]
        assert 'dts_leader_failing{part="leader.promote"} 1' in (await api.get("/metrics")).body.decode()
        await _sql(database, "ALTER TABLE lanes_away RENAME TO lanes")
        await until(well, 20)


async def _sql(database: Database, statement: str) -> None:
    async with database.session() as connection:
        await connection.execute(statement)


async def _of(failing: Any, name: str) -> Any:
    return (await failing()).get(name)


async def test_metrics_tell_how_deep_each_queue_is(database: Database, database_url: str, redis_url: str) -> None:
    async with running_api(database, redis_url) as api:
        for _ in range(3):
            await api.create(queue="reports")
        async with scheduler(database_url, redis_url):

            async def shown() -> bool:
                lines = (await api.get("/metrics")).body.decode().splitlines()
                queue = '{namespace="default",queue="reports"} 3'  # the leader may not have promoted them yet
                return any(f"dts_queue_{kind}{queue}" in lines for kind in ("queued", "due"))

            await until(shown)


async def test_what_another_term_reported_is_not_shown(database: Database, redis_url: str) -> None:
    async with running_api(database, redis_url) as api:
        part = '{"ok": false, "detail": "x", "since": "2026-01-01T00:00:00Z", "failures": 1}'
        report = f'{{"epoch": 3, "failing": {{"leader.fire": {part}}}, "queues": []}}'
        for epoch, shown in ((3, ["leader.fire"]), (4, [])):
            await _sql(
                database,
                f"UPDATE leadership SET epoch = {epoch}, holder = gen_random_uuid(), renewed_at = dts_now(),"
                f" report = '{report}', reported_at = dts_now()",
            )
            assert list((await api.get("/health/deep")).json["leader_parts"]) == shown
        await _sql(database, "UPDATE leadership SET epoch = 3, reported_at = dts_now() - interval '2 minutes'")
        assert list((await api.get("/health/deep")).json["leader_parts"]) == ["leader.fire", "leader.report"]


def test_the_lanes_of_a_queue_are_summed_and_the_deepest_comes_first() -> None:
    lanes = [
        Backlog("a", "n", "small", 1, 0, 0.0),
        Backlog("b", "n", "large", 1, 2, 3.0),
        Backlog("c", "n", "large", 4, 0, 9.0),
    ]
    found = [(depth.queue, depth.queued, depth.due, depth.oldest_due_seconds) for depth in depths(lanes)]
    assert found == [("large", 5, 2, 9.0), ("small", 1, 0, 0.0)]


def test_only_what_fails_is_told_and_briefly(health: Health) -> None:
    health.report("a", ok=True)
    health.report("b", ok=False, detail="x" * 1000)
    assert [(name, len(part.detail)) for name, part in parts_that_fail(health.snapshot().items()).items()] == [
        ("b", 300)
    ]
