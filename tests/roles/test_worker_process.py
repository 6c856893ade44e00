"""`dts-worker` as it is started in production: guard, worker and commands are processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio.to_thread
import pytest

from scheduler.broker import Broker
from scheduler.domain.clock import SystemClock
from scheduler.health import Health
from scheduler.service import Service
from scheduler.store.database import Database
from scheduler.store.intake import Intake
from scheduler.worker import linux, tree
from tests.roles.test_worker_role import shared  # noqa: F401
from tests.roles.worker_role_support import Works
from tests.roles.worker_support import alive, first_line
from tests.support import until

pytestmark = pytest.mark.skipif(not linux.SUPPORTED, reason="needs pidfds and subreapers")
ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def works_with(database: Database, redis_url: str) -> AsyncIterator[Works]:
    health = Health(SystemClock())
    installation = str(await database.fetchval("identity"))
    async with Broker.connect(redis_url, installation=installation, name="test", clock=SystemClock()) as broker:
        intake = Intake(database)
        async with Service("test", health=health) as service:
            service.start("intake", intake.run)
            yield Works(database, broker, intake, health)


@pytest.fixture
def guard(database_url: str, redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    with running_guard(database_url, redis_url, "-m", "scheduler.worker.guard") as process:
        yield process


@contextmanager
def running_guard(database_url: str, redis_url: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DTS_DATABASE_URL": database_url,
        "DTS_REDIS_URL": redis_url,
        "DTS_WORKER__CONCURRENCY": "4",
    }
    process = subprocess.Popen([sys.executable, *arguments], env=environment, cwd=ROOT)
    yield process
    for pid in [*tree.descendants([process.pid], tree.all_processes()), process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def worker_of(guard: subprocess.Popen[bytes]) -> int:
    return min(stat.pid for stat in tree.all_processes().values() if stat.parent == guard.pid)


async def test_a_killed_worker_is_replaced_and_its_runs_move_at_once(
    database: Database,
    redis_url: str,
    guard: subprocess.Popen[bytes],
    shared: Path,  # noqa: F811
) -> None:
    async with works_with(database, redis_url) as works:
        note = shared / "note"
        run_id = await works.submit(f"id -un > {note}.user; echo $$ > {note}; exec sleep 1000")
        pid = int(await first_line(note))
        if os.geteuid() == 0:
            assert await first_line(shared / "note.user") == "nobody"
        os.kill(worker_of(guard), signal.SIGKILL)
        await until(lambda: not alive(pid))
        row = await works.row_when(run_id, "pending")
        assert (row["reason"], row["losses"]) == ("lost", 1)
        await until(lambda: works.query("SELECT 1 FROM workers WHERE state = 'dead' AND end_reason = 'worker_died'"))
        assert (await works.ended_row(await works.submit("true")))["state"] == "completed"


async def test_a_command_cannot_look_into_the_worker(
    database: Database, redis_url: str, guard: subprocess.Popen[bytes]
) -> None:
    assert guard.pid
    async with works_with(database, redis_url) as works:
        row = await works.run("cat /proc/$PPID/environ /proc/$PPID/maps; echo end $?")
        assert "Permission denied" in row["output_tail"]
        assert "DTS_DATABASE" not in row["output_tail"]


async def test_told_to_stop_the_worker_drains_and_both_end_with_zero(
    database: Database, redis_url: str, guard: subprocess.Popen[bytes]
) -> None:
    async with works_with(database, redis_url) as works:
        assert (await works.run("true"))["state"] == "completed"
        guard.terminate()
        assert await anyio.to_thread.run_sync(guard.wait) == 0
        (row,) = await works.query("SELECT state FROM workers")
        assert row["state"] == "left"


@pytest.mark.parametrize(
    ("function", "code"),
    [
        pytest.param("scheduler.worker.cgroups Subtree.make", 0, id="before its worker starts"),
        pytest.param("os posix_spawn", 128 + signal.SIGTERM, id="just before there is a worker"),
        pytest.param("os pidfd_open", 128 + signal.SIGTERM, id="just after"),
    ],
)
def test_told_to_stop_while_its_worker_starts_the_guard_ends(function: str, code: int) -> None:
    words = [sys.executable, "-m", "tests.roles.run_guard_stopped", *function.split(), "/bin/sleep", "1000"]
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT) as process:
        try:
            assert process.wait(30) == code
        finally:
            for pid in [*tree.descendants([process.pid], tree.all_processes()), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
