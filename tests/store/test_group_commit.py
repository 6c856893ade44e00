"""Group commit: batches by itself, isolates what is bad, never leaves a submitter without an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import asyncpg
import pytest

from scheduler.store.database import StoreUnavailable
from scheduler.store.group_commit import GroupCommit

pytestmark = pytest.mark.anyio


class Gate:
    """A flush that records its batches and waits to be let through."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started = anyio.Event()
        self.go = anyio.Event()

    async def flush(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.started.set()
        await self.go.wait()
        return [item * 10 for item in items]


@asynccontextmanager
async def running(flush: Callable[[Sequence[int]], Awaitable[Sequence[int]]]) -> AsyncIterator[GroupCommit[int, int]]:
    commit: GroupCommit[int, int] = GroupCommit(flush, max_batch=100)
    async with anyio.create_task_group() as group:
        group.start_soon(commit.run)
        yield commit
        group.cancel_scope.cancel()


async def test_what_arrives_during_a_flush_goes_into_the_next_one_together() -> None:
    gate = Gate()
    answers: list[int] = []

    async def submit(item: int) -> None:
        answers.append(await commit.submit(item))

    async with running(gate.flush) as commit, anyio.create_task_group() as group:
        group.start_soon(submit, 1)
        await gate.started.wait()
        for item in (2, 3, 4):
            group.start_soon(submit, item)
        while commit.backlog < 3:
            await anyio.lowlevel.checkpoint()
        gate.go.set()
    assert gate.batches == [[1], [2, 3, 4]]
    assert sorted(answers) == [10, 20, 30, 40]


async def test_one_bad_item_fails_alone() -> None:
    async def flush(items: Sequence[int]) -> list[int]:
        if 3 in items:
            raise ValueError("three")
        return list(items)

    outcomes: dict[int, object] = {}

    async def submit(item: int) -> None:
        try:
            outcomes[item] = await commit.submit(item)
        except ValueError as error:
            outcomes[item] = str(error)

    async with running(flush) as commit, anyio.create_task_group() as group:
        for item in range(6):
            group.start_soon(submit, item)
    assert outcomes == {0: 0, 1: 1, 2: 2, 3: "three", 4: 4, 5: 5}


async def test_a_deadlock_is_run_again() -> None:
    calls = 0

    async def flush(items: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise asyncpg.DeadlockDetectedError("deadlock detected")
        return list(items)

    async with running(flush) as commit:
        assert await commit.submit(7) == 7
    assert calls == 2


async def test_an_outage_reaches_every_submitter_and_the_next_flush_works() -> None:
    away = True

    async def flush(items: Sequence[int]) -> list[int]:
        if away:
            raise StoreUnavailable("gone")
        return list(items)

    async with running(flush) as commit:
        with pytest.raises(StoreUnavailable):
            await commit.submit(1)
        away = False
        assert await commit.submit(2) == 2


async def test_a_submitter_that_gives_up_before_its_turn_withdraws_its_item() -> None:
    gate = Gate()

    async def submit_and_give_up() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await commit.submit(2)

    scopes: list[anyio.CancelScope] = []
    async with running(gate.flush) as commit, anyio.create_task_group() as group:
        group.start_soon(commit.submit, 1)
        await gate.started.wait()
        group.start_soon(submit_and_give_up)
        while commit.backlog < 1:
            await anyio.lowlevel.checkpoint()
        scopes[0].cancel()
        await anyio.lowlevel.checkpoint()
        gate.go.set()
    assert gate.batches == [[1]]


async def test_stopping_finishes_the_flush_under_way_and_fails_what_still_waits() -> None:
    gate = Gate()
    commit: GroupCommit[int, int] = GroupCommit(gate.flush)
    results: list[object] = []

    async def submit(item: int) -> None:
        try:
            results.append(await commit.submit(item))
        except StoreUnavailable:
            results.append("unavailable")

    async with anyio.create_task_group() as group:
        runner = anyio.CancelScope()

        async def run() -> None:
            with runner:
                await commit.run()

        group.start_soon(run)
        group.start_soon(submit, 1)
        await gate.started.wait()
        group.start_soon(submit, 2)
        while commit.backlog < 1:
            await anyio.lowlevel.checkpoint()
        runner.cancel()
        gate.go.set()
    assert results == [10, "unavailable"]


async def test_loops_that_flush_at_the_same_time_each_use_their_own_connection() -> None:
    usual, first, second = Gate(), Gate(), Gate()
    commit: GroupCommit[int, int] = GroupCommit(usual.flush)
    async with anyio.create_task_group() as loops:
        loops.start_soon(commit.run, first.flush)
        loops.start_soon(commit.run, second.flush)
        async with anyio.create_task_group() as group:
            group.start_soon(commit.submit, 1)
            while not (first.batches or second.batches):
                await anyio.lowlevel.checkpoint()
            group.start_soon(commit.submit, 2)
            await first.started.wait()
            await second.started.wait()
            first.go.set()
            second.go.set()
        loops.cancel_scope.cancel()
    assert (usual.batches, sorted([*first.batches, *second.batches])) == ([], [[1], [2]])


async def test_a_batch_that_took_too_long_is_not_split_to_wait_again() -> None:
    batches: list[list[int]] = []

    async def flush(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        raise asyncpg.QueryCanceledError("canceling statement due to statement timeout")

    async def submit(item: int) -> None:
        with pytest.raises(asyncpg.QueryCanceledError):
            await commit.submit(item)

    async with running(flush) as commit, anyio.create_task_group() as group:
        for item in range(4):
            group.start_soon(submit, item)
    assert batches == [[0, 1, 2, 3]]
