from __future__ import annotations

import anyio.to_thread
import asyncpg
import pytest
import redis

from scheduler.store.database import Database
from tests.support import ServerHandle, until


@pytest.mark.parametrize("_n", [1, 2])
async def test_each_test_has_a_migrated_database_of_its_own(_n: int, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM tasks") == 0
        await connection.execute("CREATE TABLE mine ()")
    finally:
        await connection.close()


@pytest.mark.parametrize("_n", [1, 2])
def test_each_test_has_an_empty_redis(_n: int, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("a", 1)


async def test_the_database_fixture_is_connected(database: Database) -> None:
    async with database.session() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_server_of_ones_own_can_be_killed_and_started_again(redis_server: ServerHandle) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("kept", 1)
        client.save()
    await anyio.to_thread.run_sync(redis_server.kill)
    await anyio.to_thread.run_sync(redis_server.start)
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.get("kept") == b"1"


async def test_until_returns_what_came_true_and_says_what_did_not() -> None:
    values = iter([None, 0, "x"])
    assert await until(lambda: next(values)) == "x"
    with pytest.raises(AssertionError, match=r"the moon did not come true within 0\.02 s; last: False"):
        await until(lambda: False, 0.02, "the moon")
