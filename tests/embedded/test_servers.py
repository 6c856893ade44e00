from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import anyio
import asyncpg
import psutil
import pytest
import redis.asyncio
import structlog.testing

from scheduler.embedded import process
from scheduler.embedded.datadir import DataDir, InUse
from scheduler.embedded.leftovers import read_pid
from scheduler.embedded.plan import Plan
from tests.support import until, until_sync
from tests.support.embedded import embedded, embedded_process

SERVERS = ("postgres/postmaster.pid", "valkey/valkey.pid")


def pids(home: Path) -> list[int]:
    return [pid for name in SERVERS if (pid := read_pid(home / name)) is not None]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


async def query(plan: Plan, sql: str) -> object:
    connection = await asyncpg.connect(plan.database_url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def remember(plan: Plan) -> None:
    await query(plan, "CREATE TABLE kept AS SELECT 42 AS n")
    async with redis.asyncio.Redis.from_url(plan.redis_url) as client:
        await client.set("lost", 42)


async def recall(plan: Plan) -> bool:
    """Say whether both servers are new ones: PostgreSQL's keeps what was stored, Valkey's knows nothing."""
    async with redis.asyncio.Redis.from_url(plan.redis_url) as client:
        return await query(plan, "SELECT n FROM kept") == 42 and await client.dbsize() == 0


async def test_servers_stop_cleanly_and_what_postgres_holds_is_kept(home: Path) -> None:
    async with embedded(home) as plan:
        await remember(plan)
        running = pids(home)
        assert len(running) == 2
    assert all(map(gone, running))
    assert pids(home) == []
    async with embedded(home) as plan:
        assert await recall(plan)


async def test_commits_are_durable(home: Path) -> None:
    async with embedded(home) as plan:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await query(plan, f"SHOW {setting}") == "on"
        assert await query(plan, "SHOW listen_addresses") == ""
        async with redis.asyncio.Redis.from_url(plan.redis_url) as client:
            assert await client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert await client.config_get("port") == {"port": "0"}


async def test_a_second_supervisor_is_refused_and_told_by_whom(home: Path) -> None:
    with DataDir(home), pytest.raises(InUse, match=f"in use by another dts up .process {os.getpid()}."), DataDir(home):
        pass
    with DataDir(home):
        pass


async def test_servers_end_with_a_supervisor_that_is_killed_and_their_data_starts_again(home: Path) -> None:
    with embedded_process(home) as supervisor:
        running = pids(home)
        os.kill(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
        until_sync(lambda: all(map(gone, running)), what="the end of both servers")
    async with embedded(home) as plan:
        assert await query(plan, "SELECT 1") == 1


async def test_a_leftover_server_is_stopped_before_a_new_one_starts(home: Path) -> None:
    with embedded_process(home) as supervisor:
        running = pids(home)
        for pid in running:
            os.kill(pid, signal.SIGSTOP)  # so that they outlive what would end them
        os.kill(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
        for pid in running:
            os.kill(pid, signal.SIGCONT)
    async with embedded(home) as plan:
        assert all(map(gone, running))
        assert await query(plan, "SELECT 1") == 1


async def test_a_pid_file_that_names_somebody_else_is_ignored(home: Path) -> None:
    async with embedded(home):
        pass
    async with await anyio.open_process(["sleep", "60"]) as bystander:
        for name in SERVERS:
            (home / name).write_text(f"{bystander.pid}\n")
        async with embedded(home) as plan:
            assert await query(plan, "SELECT 1") == 1
        assert bystander.returncode is None
        bystander.kill()


async def test_lock_files_that_name_a_process_which_lives_or_was_never_reaped_stop_no_start(home: Path) -> None:
    """PostgreSQL itself refuses to start beside either, for it only asks whether there is such a process."""
    async with embedded(home) as plan:
        assert plan.sockets is not None
        lock, user = plan.sockets / ".s.PGSQL.5432.lock", plan.account.name if plan.account is not None else None
        words = lock.read_text().split("\n", 1)[1]
    shell = ["sh", "-c", "true & echo $!; exec sleep 60"]  # nobody asks for the exit status of the former
    async with await anyio.open_process(shell, user=user) as bystander:
        assert bystander.stdout is not None
        dead = int(await bystander.stdout.receive())
        await until(lambda: gone(dead))
        for pid in (bystander.pid, dead):
            lock.write_text(f"{pid}\n{words}")
            (home / SERVERS[0]).write_text(f"{pid}\n")
            async with embedded(home) as plan:
                assert await query(plan, "SELECT 1") == 1
        assert bystander.returncode is None
        bystander.kill()


async def test_a_session_that_outlives_its_server_ends_before_the_next_one_starts(home: Path) -> None:
    with embedded_process(home) as supervisor:
        postmaster = pids(home)[0]
        (writer,) = [each for each in psutil.Process(postmaster).children() if "background writer" in each.cmdline()[0]]
        writer.suspend()  # so that it does not notice
        for pid in (supervisor.pid, postmaster):
            os.kill(pid, signal.SIGKILL)
        supervisor.wait()
    assert not gone(writer.pid)
    async with embedded(home) as plan:
        assert gone(writer.pid)
        assert await query(plan, "SELECT 1") == 1


async def test_a_server_that_dies_is_started_again(home: Path) -> None:
    async with embedded(home) as plan:
        await remember(plan)
        for pid in pids(home):
            os.kill(pid, signal.SIGKILL)
        await until(lambda: recall(plan), 20)


async def test_servers_run_on_a_disk_that_has_no_room_for_their_logs(home: Path) -> None:
    (home / "logs").mkdir()
    for name in ("postgres", "valkey"):
        (home / f"logs/{name}.log").symlink_to("/dev/full")
    async with embedded(home) as plan:
        before = pids(home)
        with pytest.raises(asyncpg.UndefinedTableError):  # which is a line in the log
            await query(plan, "SELECT FROM nowhere")
        assert await query(plan, "SELECT 1") == 1
        assert pids(home) == before


async def test_a_server_whose_files_cannot_be_made_is_started_when_they_can(home: Path) -> None:
    async with embedded(home) as plan:
        await remember(plan)
        shutil.move(home / "valkey", home / "moved")
        (home / "valkey").touch()
        with structlog.testing.capture_logs() as lines:
            os.kill(int((home / "moved/valkey.pid").read_text()), signal.SIGKILL)
            await until(lambda: any(line["event"] == "server does not start again" for line in lines))
        (home / "valkey").unlink()
        await until(lambda: recall(plan), 20)


@pytest.mark.parametrize("stuck", [False, True])
async def test_a_log_is_bounded_and_goes_on_where_it_cannot_be_moved_aside(
    home: Path, monkeypatch: pytest.MonkeyPatch, stuck: bool
) -> None:
    monkeypatch.setattr(process, "LOG_BYTES", 1000)
    log, older = home / "x.log", home / "x.log.1"
    if stuck:
        older.mkdir()
    command = process.Command(
        name="x", argv=["sh", "-c", "echo ready; seq 10000"], account=None, log=log, ready=b"ready", stop=()
    )
    assert await process.serve(command) == 0
    if not stuck:
        assert log.stat().st_size < 1010
        assert 1000 < older.stat().st_size < 1010
        assert log.read_text().endswith("10000\n")


@pytest.fixture
def half_made(home: Path) -> Iterator[None]:
    partial = home / "postgres.partial"
    partial.mkdir()
    (partial / "PG_VERSION").write_text("18\n")
    yield
    assert not partial.exists()


@pytest.mark.usefixtures("half_made")
async def test_an_interrupted_initdb_is_begun_anew(home: Path) -> None:
    async with embedded(home) as plan:
        assert await query(plan, "SELECT 1") == 1


async def test_a_long_path_gets_short_sockets(home: Path) -> None:
    deep = home / ("x" * 90)
    async with embedded(deep) as plan:
        assert plan.sockets is not None
        assert not plan.sockets.is_relative_to(deep)
        assert await query(plan, "SELECT 1") == 1


@pytest.fixture
def closed(home: Path) -> Path:
    home.chmod(0o700)
    return home


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide a directory from the servers' user")
async def test_root_may_keep_its_data_below_a_directory_that_is_closed_to_others(closed: Path) -> None:
    async with embedded(closed / "data") as plan:
        assert plan.account is not None
        assert plan.account.capability is not None
        assert await query(plan, "SELECT 1") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="as a plain user, commands and servers share an account")
async def test_commands_user_cannot_reach_the_servers(home: Path) -> None:
    async with embedded(home) as plan:
        assert plan.account is not None
        assert plan.account.name != "nobody"
        assert plan.sockets is not None
        for path in (plan.sockets, home / "postgres", home / "valkey"):
            done = await anyio.run_process(["ls", str(path)], user="nobody", check=False)
            assert done.returncode != 0
