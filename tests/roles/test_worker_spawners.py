"""The processes that start commands: what they take and give, and what happens when one of them is stuck or dies."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from scheduler.domain.clock import SystemClock
from scheduler.worker import linux, spawners, tree
from scheduler.worker.capture import Capture
from scheduler.worker.identity import current_identity
from scheduler.worker.launch import Launch
from scheduler.worker.page import LeasePage
from scheduler.worker.processes import Process, Processes
from scheduler.worker.spawn import DEFAULT_PATH, SpawnError
from tests.roles.worker_support import Runner, files_limited, no_files_left, open_files, printed, python
from tests.support import until

pytestmark = pytest.mark.skipif(not linux.SUPPORTED, reason="needs pidfds and subreapers")


class Clock(SystemClock):
    """The machine's, as many seconds later as a test says."""

    later = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.later


class Bench:
    """Processes whose clock can be moved, and the news of a spawner's death."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.lost = anyio.Event()
        page = LeasePage.new()
        self.runner = Runner(Processes("/", page, self.clock, sole=False, lost=self.lost.set), page)

    @property
    def spawners(self) -> list[int]:
        me = os.getpid()
        return [
            s.pid
            for s in tree.all_processes().values()
            if s.parent == me and not s.dead and _name(s.pid) == "dts-spawner"
        ]


@pytest.fixture
def few_files() -> Iterator[int]:
    with files_limited(500):
        yield 500


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    linux.become_subreaper()
    monkeypatch.setenv("DTS_DATABASE_URL", "postgresql://dts:secret@host/dts")
    made = Bench()
    try:
        await until(lambda: len(made.spawners) == 1)
        yield made
    finally:
        for pid in made.spawners:
            os.kill(pid, signal.SIGCONT)
        made.runner.processes.kill_everything()
        made.runner.processes.close()


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _sleeps(pid: int) -> bool:
    """Whether every thread of it waits."""
    return all(
        task.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "S"
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


async def _start(runner: Runner, fence: int, started: list[Process]) -> None:
    launch = Launch(["/bin/true"], {"PATH": DEFAULT_PATH}, current_identity())
    started.append(await runner.processes.start(launch, fence, Capture(1000)))


async def test_one_spawner_is_enough_for_little_and_two_share_much(bench: Bench) -> None:
    await bench.runner.run("true")
    assert len(bench.spawners) == 1
    started: list[Process] = []
    async with anyio.create_task_group() as group:
        for fence in range(20):
            group.start_soon(_start, bench.runner, fence, started)
    parents = {stat.parent for process in started if (stat := tree.read_stat(process.pid)) is not None}
    assert parents <= set(bench.spawners)
    assert len(bench.spawners) == 2
    for process in started:
        await process.gone
    assert [process.exit_code for process in started] == [0] * 20


async def test_a_spawner_that_was_woken_for_nothing_waits_again(bench: Bench) -> None:
    for _ in range(3):
        bench.runner.processes.expect()
    assert printed(await bench.runner.run("echo awake")) == b"awake\n"
    bench.runner.processes.expect()
    await until(lambda: _sleeps(bench.spawners[0]))


async def test_when_the_spawner_is_stuck_another_one_takes_over_and_nothing_is_lost(bench: Bench) -> None:
    stuck = bench.spawners
    for pid in stuck:
        os.kill(pid, signal.SIGSTOP)
    started: list[Process] = []
    async with anyio.create_task_group() as group:
        for fence in range(3):
            group.start_soon(_start, bench.runner, fence, started)
        await anyio.wait_all_tasks_blocked()
        bench.clock.later += 1.0
        bench.runner.processes.look_after()
        assert len(bench.spawners) == 1  # it may be merely slow
        bench.clock.later += 2.0
        bench.runner.processes.look_after()
        process = await bench.runner.run("echo meanwhile")
        assert printed(process) == b"meanwhile\n"
        assert not started
        for pid in stuck:
            os.kill(pid, signal.SIGCONT)
    for process in started:
        await process.gone
    assert [process.exit_code for process in started] == [0] * 3
    bench.runner.processes.look_after()
    assert len(bench.spawners) == 2


async def test_where_no_other_spawner_can_be_started_the_one_there_is_starts_everything(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(spawners, "_start", refused)
    started: list[Process] = []
    async with anyio.create_task_group() as group:
        for fence in range(20):
            group.start_soon(_start, bench.runner, fence, started)
    (only,) = bench.spawners
    os.kill(only, signal.SIGSTOP)
    async with anyio.create_task_group() as group:
        group.start_soon(_start, bench.runner, 20, started)
        await anyio.wait_all_tasks_blocked()
        bench.clock.later += 3.0
        try:
            bench.runner.processes.look_after()
        finally:
            os.kill(only, signal.SIGCONT)
    for process in started:
        await process.gone
    assert [process.exit_code for process in started] == [0] * 21


async def test_a_command_whose_cell_cannot_be_passed_on_does_not_start_and_no_spawner_waits_for_it(
    bench: Bench,
) -> None:
    entrance = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    before = open_files()
    try:
        with no_files_left(), pytest.raises(SpawnError, match="Too many open files") as caught:
            await bench.runner.start("true", cell=[entrance] * 2)
        assert caught.value.what == "limits_not_set"
        assert not open_files() - before
    finally:
        os.close(entrance)
    bench.clock.later += 3.0
    bench.runner.processes.look_after()
    assert len(bench.spawners) == 1
    assert printed(await bench.runner.run("echo fine")) == b"fine\n"


async def test_pipes_that_no_file_is_left_for_are_the_loss_of_the_spawner_that_sent_them(bench: Bench) -> None:
    for _ in range(3):  # at the first time, unless this process was kept waiting before it takes all files away
        await bench.runner.start("exec sleep 60")
        with no_files_left(), anyio.move_on_after(2):
            await bench.lost.wait()
        if bench.lost.is_set():
            break
    assert bench.lost.is_set()


async def test_commands_may_open_as_many_files_as_before_whatever_their_worker_may(
    few_files: int, bench: Bench
) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    said: list[bytes] = []

    async def ask() -> None:
        said.append(printed(await bench.runner.run("ulimit -Sn; ulimit -Hn")))

    with files_limited(most):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask)
    assert len(bench.spawners) == 2
    assert said == [f"{few_files}\n{most}\n".encode()] * 20


async def test_the_death_of_a_spawner_is_noticed(bench: Bench) -> None:
    os.kill(bench.spawners[0], signal.SIGKILL)
    with anyio.fail_after(10):
        await bench.lost.wait()


async def test_a_spawner_neither_listens_to_those_who_end_commands_nor_knows_our_servers(bench: Bench) -> None:
    for pid in bench.spawners:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
    assert printed(await bench.runner.run("echo alive")) == b"alive\n"
    assert tree.environment_value(bench.spawners[0], "PATH") is not None
    assert tree.environment_value(bench.spawners[0], "DTS_DATABASE_URL") is None


async def test_an_order_larger_than_any_socket_buffer_arrives_and_so_does_what_is_printed(bench: Bench) -> None:
    content = os.urandom(1 << 20)
    process = await bench.runner.run(["cat"], limit=2 << 20, stdin=content)
    assert printed(process) == content


async def test_what_a_command_prints_early_and_late_keeps_its_order(bench: Bench) -> None:
    script = "import os, time\nfor i in range(200): os.write(1, b'%d\\n' % i); time.sleep(0.001)"
    process = await bench.runner.run(python(script))
    assert printed(process) == b"".join(b"%d\n" % number for number in range(200))


async def test_descriptors_of_commands_that_have_ended_are_closed_everywhere(bench: Bench) -> None:
    await bench.runner.run("sleep 0.2; echo late")  # its pipes were passed on
    before = [open_files(pid) for pid in (os.getpid(), *bench.spawners)]
    for _ in range(3):
        await bench.runner.run("sleep 0.2 & echo early")
        await bench.runner.run("sleep 0.2; echo late")
        await bench.runner.run("setsid sleep 100 & echo held")
    after = [open_files(pid) for pid in (os.getpid(), *bench.spawners)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [Counter()] * len(after)
