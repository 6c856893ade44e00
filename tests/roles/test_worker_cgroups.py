"""Workers that have cgroups: what they bound, what they kill, and what is left of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from scheduler.domain.task import Limits
from scheduler.store.database import Database
from scheduler.worker import cgroups, linux
from scheduler.worker.hierarchies import Hierarchy, own_hierarchies
from tests.roles.test_worker_guard import Guarded, start  # noqa: F401
from tests.roles.test_worker_process import guard, running_guard, worker_of, works_with  # noqa: F401
from tests.roles.test_worker_role import programs_loaded, shared  # noqa: F401
from tests.roles.worker_support import alive, first_line
from tests.support import until, until_sync
from tests.support.rows import run_row
from tests.system.hostile.support import bomb, living


def usable() -> set[str]:
    """Return the controllers that a worker started here can use."""
    return {
        name
        for hierarchy in own_hierarchies()
        if os.access(hierarchy.directory, os.W_OK)
        for name in (*hierarchy.controllers, f"v{hierarchy.version}")
        if hierarchy.version == 1 or name == "v2"  # of v2 the tests' own processes keep the controllers to themselves
    }


pytestmark = pytest.mark.skipif(not linux.SUPPORTED or not usable(), reason="needs cgroups that may be written")
with_memory = pytest.mark.skipif("memory" not in usable(), reason="needs the memory controller")
with_pids = pytest.mark.skipif("pids" not in usable(), reason="needs the pids controller")


def left_of(process: subprocess.Popen[bytes]) -> list[Path]:
    """Return the cgroups that a guard has made."""
    own = own_hierarchies()
    return [p for h in own for p in Path(h.directory).glob(f"dts-*-{process.pid}-*")]


EATER = "import sys\nfor n in range(400): x = bytearray(1 << 20) if n == 0 else x + bytearray(b'x' * (1 << 20))"


@with_memory
async def test_what_uses_more_memory_than_it_may_ends_with_the_reason_oom(
    database: Database,
    redis_url: str,
    guard: subprocess.Popen[bytes],  # noqa: F811
) -> None:
    async with works_with(database, redis_url) as works:
        row = await works.run(["python3", "-S", "-c", EATER], limits=Limits(memory="64M"))
        assert (row["state"], row["reason"]) == ("failed", "oom")
        row = await works.run(["python3", "-S", "-c", "bytearray(b'x' * (20 << 20))"], limits=Limits(memory="64M"))
        assert (row["state"], row["reason"]) == ("completed", "exit:0"), "the cell was not fit for another command"
        assert alive(worker_of(guard))


@with_memory
async def test_a_command_that_copes_with_the_death_of_a_greedy_child_succeeds(
    database: Database,
    redis_url: str,
    guard: subprocess.Popen[bytes],  # noqa: F811
) -> None:
    assert guard.pid
    if "memory" in {c for h in own_hierarchies() if h.version == 2 for c in h.controllers}:
        pytest.skip("here the whole command is killed together")
    async with works_with(database, redis_url) as works:
        command = f'python3 -S -c "{EATER}"; echo child $?'
        row = await works.run(command, limits=Limits(memory="64M"))
        assert (row["state"], row["output_tail"]) == ("completed", "Killed\nchild 137\n")


@with_pids
async def test_a_limit_on_processes_is_the_commands_own_and_not_the_users(
    database: Database,
    redis_url: str,
    guard: subprocess.Popen[bytes],  # noqa: F811
    shared: Path,  # noqa: F811
) -> None:
    assert guard.pid
    async with works_with(database, redis_url) as works:
        note = shared / "note"
        forks = f"""
import os, time
made = 0
try:
    while made < 100:
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        made += 1
except BlockingIOError:
    open({str(note)!r}, "w").write(f"{{made}}\\n")
    time.sleep(20)
"""
        bomb = await works.submit(["python3", "-S", "-c", forks], limits=Limits(pids=10), timeout=30.0)
        assert int(await first_line(note)) == 9
        row = await works.run("for n in 1 2 3 4 5; do sleep 0.01 & done; wait; echo fine", limits=Limits(pids=10))
        assert row["output_tail"] == "fine\n"
        (row,) = await works.query("UPDATE runs SET cancel_requested = true WHERE id = $1 RETURNING worker_id", bomb)
        await works.broker.publish(f"worker:{row['worker_id']}")
        assert (await works.ended_row(bomb))["state"] == "cancelled"


@with_pids
async def test_nothing_that_a_command_names_is_loaded_where_a_cell_can_be_entered(
    database: Database,
    redis_url: str,
    guard: subprocess.Popen[bytes],  # noqa: F811
    shared: Path,  # noqa: F811
) -> None:
    assert guard.pid
    env = {"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": f"{shared}/loaded"}
    async with works_with(database, redis_url) as works:
        row = await works.run(["/usr/bin/env"], env=env, limits=Limits(pids=20))
        assert {f"{name}={value}" for name, value in env.items()} <= set(row["output_tail"].splitlines())
        assert programs_loaded(shared) == ["/usr/bin/env"]


@pytest.mark.skipif("cpu" not in usable(), reason="needs the cpu controller")
async def test_a_command_gets_no_more_of_the_processors_than_its_limit_says(
    database: Database,
    redis_url: str,
    guard: subprocess.Popen[bytes],  # noqa: F811
) -> None:
    assert guard.pid
    async with works_with(database, redis_url) as works:
        burn = (
            "import time\nbegan, end = time.process_time(), time.monotonic() + 1\nwhile time.monotonic() < end: pass\n"
            "print(time.process_time() - began)"
        )
        row = await works.run(["python3", "-S", "-c", burn], limits=Limits(cpu=0.2))
        assert float(row["output_tail"]) < 0.4


async def test_a_command_with_limits_is_in_a_cell_and_one_without_beside_its_worker(
    database: Database,
    redis_url: str,
    guard: subprocess.Popen[bytes],  # noqa: F811
    shared: Path,  # noqa: F811
) -> None:
    async with works_with(database, redis_url) as works:
        plain = (await works.run("cat /proc/self/cgroup"))["output_tail"]
        kept_by_v2 = plain.count("0::/") and "/work/worker\n" in plain.partition("0::/")[2]
        assert plain.count(f"-{guard.pid}-") == plain.count("/work/worker\n")
        assert plain.count("/work/worker\n") == (1 if kept_by_v2 else len(left_of(guard)))
        if not usable() & {"memory", "pids"}:
            return
        script = "cat /proc/self/cgroup; ls /proc/self/fd | wc -l"
        for _ in range(3):
            row = await works.run(script, limits=Limits(memory="64M", pids=20, files=77))
            assert row["output_tail"].count("/work/cell-") == len(left_of(guard))
            assert row["output_tail"].endswith("\n4\n"), "a descriptor of the worker's leaked"
        assert len(list(left_of(guard)[0].glob("work/cell-*"))) == 1, "an empty cell was not used again"
        note = shared / "note"
        escape = f"env -i setsid sh -c 'echo $$ > {note}; sleep 50' & until [ -s {note} ]; do sleep 0.02; done"
        row = await works.run(escape, limits=Limits(pids=20))
        assert row["state"] == "completed"
        assert not alive(int(await first_line(note)))
        guard.terminate()
        await until(lambda: guard.poll() is not None)
        assert left_of(guard) == []


@pytest.mark.alone  # any other guard would end it, too
def test_what_is_left_when_everything_that_kills_it_was_killed_ends_with_the_next_start(
    start: type[Guarded],  # noqa: F811
) -> None:
    first = start()
    pids, worker = first.tree(), first.worker()
    first.kill(worker, *first.spawners(), first.guard.pid)
    assert all(map(alive, pids)), "this is what the next guard is tested for"
    left = left_of(first.guard)
    assert left
    start(command="")
    until_sync(lambda: not any(map(alive, pids)), what="the tree to be gone")
    until_sync(lambda: not any(path.exists() for path in left), what="their cgroups to be removed")


@with_pids
def test_what_a_worker_and_its_commands_fork_in_all_is_bounded(start: type[Guarded]) -> None:  # noqa: F811
    first = start()
    first.worker()
    bounds = [p.read_text().strip() for d in left_of(first.guard) for p in [d / "work/pids.max"] if p.exists()]
    assert bounds == [str(cgroups.most_processes())]
    assert 100 < cgroups.most_processes() < int(Path("/proc/sys/kernel/pid_max").read_text()) / 5


WITHOUT = "from scheduler.worker import cgroups, guard; cgroups.own_hierarchies = list; guard.main()"


@pytest.mark.skipif(os.geteuid() != 0, reason="commands run as our own user, whose processes the bomb counts too")
@pytest.mark.alone
async def test_without_cgroups_a_fork_bomb_is_put_out_and_its_neighbour_goes_on(
    database: Database,
    redis_url: str,
    database_url: str,
    shared: Path,  # noqa: F811
) -> None:
    started, go = shared / "started", shared / "go"
    with running_guard(database_url, redis_url, "-c", WITHOUT) as bare:
        async with works_with(database, redis_url) as works:
            neighbour = await works.submit(
                f"cat /proc/self/cgroup; until [ -e {go} ]; do sleep 0.05; done", timeout=40.0
            )
            run_id = await works.submit(bomb(started, width=40, seconds=40), env={"MARK": "bare"}, kill_timeout=0.2)
            await first_line(started)
            await until(lambda: len(living("bare")) > 50)
            worker = worker_of(bare)
            beyond = await works.submit("true", limits=Limits(cpu=0.5))  # what this worker cannot enforce
            (row,) = await works.query(
                "UPDATE runs SET cancel_requested = true WHERE id = $1 RETURNING worker_id", run_id
            )
            await works.broker.publish(f"worker:{row['worker_id']}")
            assert (await works.ended_row(run_id))["state"] == "cancelled"
            assert living("bare") == []
            assert worker_of(bare) == worker
            go.touch()
            row = await works.ended_row(neighbour)
            assert row["state"] == "completed"
            assert "dts-" not in row["output_tail"]
            (announced,) = await works.query("SELECT containment FROM workers")
            assert announced["containment"] == "session"
            assert (await run_row(database, beyond))["state"] == "queued"


def test_a_guard_that_we_cannot_see_is_not_taken_for_dead(tmp_path: Path) -> None:
    foreign = tmp_path / "dts-1-2-3"
    (foreign / "work").mkdir(parents=True)
    (tmp_path / "dts-something-else").mkdir()
    cgroups.sweep(str(tmp_path))
    assert foreign.exists()
    assert (tmp_path / "dts-something-else").exists()


def test_without_a_place_to_write_there_is_no_subtree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "own_hierarchies", lambda: [Hierarchy(2, (), str(tmp_path / "missing"))])
    assert cgroups.Subtree.make() is None
