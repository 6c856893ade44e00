"""A worker's event loop on a thread of its own."""

from __future__ import annotations

import os
import threading

import anyio
import pytest

from scheduler.worker import linux
from scheduler.worker.apart import apart
from tests.roles.worker_support import printed, runner


async def test_main_runs_on_another_thread_until_told_to_stop() -> None:
    stop = anyio.Event()
    threads = []

    async def main(told: anyio.Event) -> None:
        threads.append(threading.get_ident())
        await told.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(apart(main), stop)
        stop.set()
    assert threads
    assert threads[0] != threading.get_ident()


async def test_what_main_raises_arrives() -> None:
    async def main(_: anyio.Event) -> None:
        raise LookupError("gone")

    with pytest.raises(BaseExceptionGroup) as caught, anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(apart(main), anyio.Event())
    assert caught.group_contains(LookupError, match="gone") if hasattr(caught, "group_contains") else True


async def test_cancelling_cancels_main_and_waits_for_it() -> None:
    log: list[str] = []
    started = threading.Event()

    async def main(_: anyio.Event) -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            log.append("cancelled")

    async with anyio.create_task_group() as group:
        group.start_soon(apart(main), anyio.Event())
        await anyio.to_thread.run_sync(started.wait)
        group.cancel_scope.cancel()
    assert log == ["cancelled"]


@pytest.mark.skipif(not linux.SUPPORTED, reason="needs /proc")
async def test_commands_start_from_there_and_their_orphans_are_found() -> None:
    linux.become_subreaper()

    async def main(_: anyio.Event) -> None:
        async with runner() as run:
            process = await run.run("setsid sleep 1000 & sleep 0.1; echo $PPID")
            assert int(printed(process)) == os.getpid()
            assert run.processes.empty

    await apart(main)(anyio.Event())
