"""What commands do that mean harm, or might as well: the worker ends them, says how they ended, and goes on.

Every command here ends by itself within a minute, should it escape.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.worker import linux
from tests.roles.test_worker_cgroups import usable
from tests.roles.worker_support import alive
from tests.support.cluster import Cluster
from tests.support.waiting import until_sync
from tests.system.hostile.support import MIB, Growth, bomb, ended, executed, living, note, python, submit

pytestmark = pytest.mark.skipif(not linux.SUPPORTED, reason="needs pidfds and subreapers")
PRINTED = int(float(os.environ.get("DTS_TEST_PRINTED_GB", "0.3")) * 1e9)
"""Bytes that one command prints."""


@pytest.fixture(autouse=True)
def _unharmed(system: Cluster) -> Iterator[None]:
    """The same worker process works before and after."""
    (worker,) = system.of("worker")
    before = worker.worker.pid
    yield
    assert worker.worker.pid == before, worker.log.read_text()[-2000:]
    assert executed(system, ["/bin/echo", "fine"])["output_tail"] == "fine\n"
    until_sync(lambda: not worker.commands(), what="nothing to be left of any command")


def test_what_ignores_term_is_killed_when_its_kill_timeout_is_over(system: Cluster, home: Path) -> None:
    pid = home / "notes/stubborn"
    command = f"trap '' TERM INT HUP; echo $$ > {pid}; n=0; while [ $n -lt 40 ]; do sleep 1; n=$((n+1)); done"
    began = time.monotonic()
    row = executed(system, command, timeout=1.0, kill_timeout=0.5)
    assert (row["state"], row["reason"]) == ("failed", "timeout")
    assert time.monotonic() - began < 8
    assert not alive(int(note(pid)))


def test_a_daemon_that_holds_the_output_neither_delays_the_end_nor_survives_it(system: Cluster, home: Path) -> None:
    pid = home / "notes/daemon"
    script = f"""
import os, signal, time
print("main", flush=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.environ.clear()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        open({str(pid)!r}, "w").write(f"{{os.getpid()}}\\n")
        time.sleep(50)
    os._exit(0)
while not os.path.exists({str(pid)!r}):
    time.sleep(0.01)
"""
    row = executed(system, python(script), 10)
    assert (row["state"], row["output_tail"]) == ("completed", "main\n")
    assert not alive(int(note(pid)))


def test_a_grandchild_that_is_alive_when_its_command_exits_dies_with_it(system: Cluster, home: Path) -> None:
    pid = home / "notes/grandchild"
    row = executed(
        system, f"(sh -c 'echo $$ > {pid}; exec sleep 50' &) ; until [ -s {pid} ]; do sleep 0.02; done; exit 3"
    )
    assert (row["state"], row["reason"]) == ("failed", "exit:3")
    assert not alive(int(note(pid)))


@pytest.mark.skipif("pids" not in usable(), reason="needs the pids controller")
@pytest.mark.alone
def test_a_fork_bomb_under_a_limit_on_processes_hurts_nobody_else(system: Cluster, home: Path) -> None:
    started = home / "notes/bomb"
    run_id = submit(system, bomb(started, width=60, seconds=60), limits={"pids": 80}, env={"MARK": "bomb"})
    note(started)
    until_sync(lambda: len(living("bomb")) > 50, what="the bomb to go off")
    assert executed(system, "for n in 1 2 3; do /bin/true; done; echo untouched", 30)["output_tail"] == "untouched\n"
    assert len(living("bomb")) <= 80
    assert system.request("POST", f"/api/runs/{run_id}/cancel").status_code == 202
    assert ended(system, run_id, 30)["state"] == "cancelled"
    assert living("bomb") == []


@pytest.mark.alone
def test_a_fork_bomb_without_a_limit_is_put_out(system: Cluster, home: Path) -> None:
    started = home / "notes/free"
    run_id = submit(system, bomb(started, width=40, seconds=40), env={"MARK": "free"}, kill_timeout=0.2)
    note(started)
    until_sync(lambda: len(living("free")) > 30, what="the bomb to go off")
    assert system.request("POST", f"/api/runs/{run_id}/cancel").status_code == 202
    assert ended(system, run_id, 20)["state"] == "cancelled"
    assert living("free") == []


def test_endless_output_costs_the_worker_no_memory(system: Cluster) -> None:
    executed(system, "head -c 5000000 /dev/zero | tr '\\0' x")  # what the first such command makes it load
    growth = Growth(system.of("worker")[0].worker)
    row = executed(system, f"head -c {PRINTED} /dev/zero | tr '\\0' x; echo the end", 60 + PRINTED / 2e7)
    assert (row["state"], row["output_tail"][-8:]) == ("completed", "the end\n")
    assert growth.bytes() <= 16 * MIB
    (kept,) = system.sql("SELECT sum(length(data)) FROM output_chunks WHERE run_id = $1::text::uuid", str(row["id"]))
    assert 9 * MIB < kept[0] <= 10 * MIB


@pytest.mark.skipif("memory" not in usable(), reason="needs the memory controller")
def test_what_eats_memory_under_a_limit_ends_as_oom(system: Cluster) -> None:
    script = "x = []\nfor _ in range(500): x.append(b'x' * (1 << 20))"
    row = executed(system, python(script), limits={"memory": "50M"})
    assert (row["state"], row["reason"]) == ("failed", "oom")
    row = executed(system, python("b'x' * (20 << 20)"), limits={"memory": "50M"})
    assert row["state"] == "completed"


def test_a_checkpoint_of_100_mb_is_refused_and_that_is_said(system: Cluster) -> None:
    growth = Growth(system.of("worker")[0].worker)
    write = (
        'head -c 100000000 /dev/zero > "$DTS_CHECKPOINT_FILE.new"; mv "$DTS_CHECKPOINT_FILE.new" "$DTS_CHECKPOINT_FILE"'
    )
    row = executed(system, f"{write}; exit 9")
    assert row["reason"] == "exit:9"
    assert "the checkpoint was not stored: it is longer than 1048576 bytes" in row["output_tail"]
    assert growth.bytes() <= 16 * MIB
    assert system.request("GET", f"/api/runs/{row['id']}/checkpoint").status_code == 404


def test_what_a_command_leaves_beside_its_files_goes_when_it_has_ended(system: Cluster) -> None:
    row = executed(
        system,
        'cd "$(dirname "$DTS_OUTPUT_FILE")" && mkdir -p a/b && echo x > a/b/c && echo y > stray && ln -s / link && pwd',
    )
    directory = Path(row["output_tail"].strip())
    assert directory.is_dir()
    until_sync(lambda: list(directory.iterdir()) == [], what="nothing to be left of it")
    assert Path("/etc").is_dir()


def test_a_command_that_closes_all_its_descriptors_is_awaited(system: Cluster, home: Path) -> None:
    begun, go = home / "notes/closed", home / "notes/go"
    script = f"""
import os, time
open({str(begun)!r}, "w").write("x\\n")
os.closerange(0, 256)
end = time.monotonic() + 30
while not os.path.exists({str(go)!r}) and time.monotonic() < end:
    time.sleep(0.02)
os._exit(4)
"""
    run_id = submit(system, python(script))
    note(begun)
    assert system.run(run_id)["state"] == "running"
    go.touch()
    assert ended(system, run_id, 10)["reason"] == "exit:4"


def test_signals_to_everybody_that_a_command_may_reach_do_not_reach_its_worker(system: Cluster) -> None:
    if os.geteuid() != 0:
        pytest.skip("commands run as the worker's own user here")
    row = executed(system, "trap '' TERM; kill -TERM $PPID; echo $?; kill -KILL $PPID; echo $?")
    assert row["output_tail"].count("1\n") == 2
    assert signal.SIGKILL  # the worker lives: see _unharmed
