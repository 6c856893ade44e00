from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import asyncpg
import pytest

from scheduler.domain.term import TermLost
from scheduler.store.database import Database
from scheduler.store.terms import Terms, fenced, leader_settings
from tests.support.locks import waiting_for_locks
from tests.support.recurring import lead
from tests.support.rows import IDS
from tests.support.waiting import until


async def test_a_term_is_taken_only_as_it_was_seen(database: Database) -> None:
    terms = Terms(database)
    seen, _ = await terms.read()
    ours, theirs = IDS.take(2)
    assert await terms.take(seen, ours, host="a", pid=1) == seen.epoch + 1
    assert await terms.take(seen, theirs, host="b", pid=2) is None
    assert (await terms.read())[0].holder == ours


async def test_a_renewal_that_came_between_keeps_the_term(database: Database) -> None:
    terms = Terms(database)
    holder = IDS.one()
    epoch = await terms.take((await terms.read())[0], holder, host="a", pid=1)
    assert epoch is not None
    seen, _ = await terms.read()
    assert await terms.renew(epoch, holder)
    assert await terms.take(seen, IDS.one(), host="b", pid=2) is None


async def test_only_the_holder_renews_and_releases(database: Database) -> None:
    terms = Terms(database)
    holder = IDS.one()
    epoch = await terms.take((await terms.read())[0], holder, host="a", pid=1)
    assert epoch is not None
    assert not await terms.renew(epoch, IDS.one())
    assert not await terms.release(epoch - 1, holder)
    assert await terms.release(epoch, holder)
    assert not await terms.renew(epoch, holder)
    assert (await terms.read())[0].holder is None


async def test_a_renewal_waits_for_no_write_of_the_leader(database: Database) -> None:
    terms = Terms(database)
    holder = IDS.one()
    epoch = await terms.take((await terms.read())[0], holder, host="a", pid=1)
    assert epoch is not None
    async with fenced(database, epoch):
        with anyio.fail_after(5):
            assert await terms.renew(epoch, holder)


async def test_a_write_of_an_ended_epoch_is_refused(database: Database) -> None:
    epoch = await lead(database)
    await lead(database)
    with pytest.raises(TermLost):
        async with fenced(database, epoch):
            pytest.fail("entered")


async def test_taking_waits_for_a_write_under_way_which_then_commits_first(database: Database) -> None:
    epoch = await lead(database)
    taken: list[int] = []

    async def take() -> None:
        taken.append(await lead(database))

    async with anyio.create_task_group() as group, fenced(database, epoch):
        group.start_soon(take)
        await until(lambda: waiting_for_locks(database))
        assert taken == []
    assert taken == [epoch + 1]


async def test_a_stopped_leader_in_a_transaction_cannot_hold_up_its_successor(
    database: Database, database_url: str
) -> None:
    """Its session ends by its own timeout, or else the successor ends it; either way what it wrote is gone."""
    epoch = await lead(database)
    async with stopped_leader(database_url, ttl=60.0) as stopped:
        await stopped.execute("SELECT 1 FROM leadership WHERE epoch = $1 FOR KEY SHARE", epoch)
        terms = Terms(database)
        seen, _ = await terms.read()
        with anyio.fail_after(5):
            assert await terms.take(seen, IDS.one(), host="b", pid=2, patience=0.1) == epoch + 1


async def test_a_leaders_session_that_sits_in_a_transaction_is_ended_within_the_term(database_url: str) -> None:
    async with stopped_leader(database_url, ttl=0.5) as stopped:
        await until(stopped.is_closed)


@asynccontextmanager
async def stopped_leader(database_url: str, *, ttl: float) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A session with a transaction under way that nobody will ever finish."""
    connection = await asyncpg.connect(database_url, server_settings=leader_settings(ttl))
    try:
        await connection.execute("BEGIN")
        yield connection
    finally:
        connection.terminate()
