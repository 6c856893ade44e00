"""The guard over real processes: whoever dies, stops or hangs, no command outlives the lease."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.worker import linux, tree
from tests.roles.worker_support import alive
from tests.support import until_sync

pytestmark = pytest.mark.skipif(not linux.SUPPORTED, reason="needs pidfds and subreapers")
ROOT = Path(__file__).parents[2]
# Ignored signals stay ignored by what is executed. Whatever should escape ends by itself.
DAEMON = "setsid sh -c 'trap \"\" TERM HUP; echo $$ > {notes}/daemon; exec sleep 100' & "
TASK = DAEMON + "trap '' TERM; echo $$ > {notes}/task; exec sleep 100"


class Guarded:
    """A guard, its worker and one command of the worker's."""

    def __init__(self, notes: Path, command: str, lease: float, stderr: int | None = None) -> None:
        self.notes = notes
        words = [sys.executable, str(ROOT / "tests/roles/guarded_worker.py"), str(notes)]
        self.guard = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/roles/run_guard.py"), *words, command.format(notes=notes), str(lease)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=stderr,
        )

    def workers(self) -> list[tuple[int, str]]:
        path = self.notes / "workers"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), replaces) for pid, replaces in (line.split() for line in lines)]

    def worker(self) -> int:
        return until_sync(self.workers, what="a worker")[-1][0]

    def note(self, name: str) -> int:
        path = self.notes / name
        return int(
            until_sync(lambda: path.exists() and path.read_text().endswith("\n") and path.read_text(), what=name)
        )

    def tree(self) -> list[int]:
        return [self.note("task"), self.note("daemon")]

    def spawners(self) -> list[int]:
        worker, processes = self.worker(), tree.all_processes()
        names = {pid: Path(f"/proc/{pid}/comm") for pid in tree.descendants([worker], processes)}
        return [pid for pid, name in names.items() if name.read_text() == "dts-spawner\n"]

    def kill(self, *pids: int) -> None:
        """Kill the guard and others together: none of them can do anything about another's death."""
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, number)
        self.guard.wait()

    def end(self) -> None:
        processes = tree.all_processes()
        for pid in [*tree.descendants([self.guard.pid], processes), self.guard.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.guard.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[type[Guarded]]:
    made: list[Guarded] = []

    def make(command: str = TASK, lease: float = 30.0, stderr: int | None = None) -> Guarded:
        made.append(Guarded(tmp_path, command, lease, stderr))
        return made[-1]

    yield make  # type: ignore[misc]
    for guarded in made:
        guarded.end()


def test_when_the_worker_is_killed_nothing_of_it_is_left_and_a_new_one_is_told_so(start: type[Guarded]) -> None:
    guarded = start()
    pids = guarded.tree()
    old = (guarded.notes / "incarnation").read_text()
    os.kill(guarded.worker(), signal.SIGKILL)
    until_sync(lambda: not any(map(alive, pids)), 10.0, "the tree to be gone")
    until_sync(lambda: len(guarded.workers()) == 2, what="a new worker")
    assert guarded.workers()[1][1] == old


def test_a_new_worker_starts_although_nobody_reads_that_the_old_one_ended(start: type[Guarded]) -> None:
    read, unread = os.pipe()
    os.close(read)
    guarded = start(command="", stderr=unread)
    os.close(unread)
    os.kill(guarded.worker(), signal.SIGKILL)
    until_sync(lambda: len(guarded.workers()) == 2, what="a new worker")
    assert guarded.guard.poll() is None


def test_when_a_spawner_is_killed_its_worker_ends_with_all_commands_and_a_new_one_starts(start: type[Guarded]) -> None:
    guarded = start()
    worker, pids = guarded.worker(), guarded.tree()
    os.kill(guarded.spawners()[-1], signal.SIGKILL)
    until_sync(lambda: not any(map(alive, [worker, *pids])), 10.0, "worker and tree to be gone")
    until_sync(lambda: len(guarded.workers()) == 2, what="a new worker")


def test_a_worker_that_is_stopped_beyond_its_lease_is_killed_with_its_commands(start: type[Guarded]) -> None:
    guarded = start(lease=2.0)
    pids = [*guarded.tree(), guarded.worker()]
    os.kill(guarded.worker(), signal.SIGSTOP)
    until_sync(lambda: not any(map(alive, pids)), 10.0, "worker and tree to be gone")


def test_a_lease_that_is_renewed_is_left_alone_and_one_that_is_not_is_enforced(start: type[Guarded]) -> None:
    guarded = start(lease=2.0)
    (guarded.notes / "renew").touch()
    worker, pids = guarded.worker(), guarded.tree()
    until_sync(lambda: _boot_seconds_since(worker) > 5.0, what="two leases to pass")
    assert all(map(alive, [worker, *pids]))
    (guarded.notes / "renew").unlink()
    until_sync(lambda: not any(map(alive, [worker, *pids])), 10.0, "the lease to be enforced")


def _boot_seconds_since(pid: int) -> float:
    stat = tree.read_stat(pid)
    assert stat is not None
    return float(Path("/proc/uptime").read_text().split()[0]) - stat.started / os.sysconf("SC_CLK_TCK")


def test_a_worker_without_commands_outlives_its_lease(start: type[Guarded]) -> None:
    guarded = start(command="", lease=0.5)
    worker = guarded.worker()
    until_sync(lambda: _boot_seconds_since(worker) > 3.0, what="the lease to be long over")
    assert alive(worker)
    assert len(guarded.workers()) == 1


def test_when_the_guard_is_killed_the_worker_ends_with_its_commands(start: type[Guarded]) -> None:
    guarded = start()
    pids = [*guarded.tree(), guarded.worker()]
    guarded.guard.kill()
    until_sync(lambda: not any(map(alive, pids)), 10.0, "worker and tree to be gone")


def test_when_guard_and_worker_are_killed_together_the_spawner_kills_the_commands(start: type[Guarded]) -> None:
    guarded = start()
    pids = [*guarded.tree(), *guarded.spawners()]
    guarded.kill(guarded.worker(), guarded.guard.pid)
    until_sync(lambda: not any(map(alive, pids)), 10.0, "spawner and tree to be gone")


def test_a_signal_to_stop_is_passed_on_and_the_exit_code_is_the_workers(start: type[Guarded]) -> None:
    guarded = start()
    pids = guarded.tree()
    guarded.guard.terminate()  # this worker knows no draining: it just ends
    assert guarded.guard.wait(10) == 128 + signal.SIGTERM
    assert not any(map(alive, pids))
    assert len(guarded.workers()) == 1


def test_a_worker_that_never_comes_up_is_not_started_again(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "tests/roles/run_guard.py"),
        "/bin/sh",
        "-c",
        f"echo x >> {tmp_path}/n; exit 78",
    ]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 78
    assert (tmp_path / "n").read_text() == "x\n"


def test_the_guard_is_small_and_idle(start: type[Guarded]) -> None:
    guarded = start(lease=2.0)
    (guarded.notes / "renew").touch()
    guarded.tree()
    status = Path(f"/proc/{guarded.guard.pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0])
    assert resident < 16_000, f"{resident} kB"
