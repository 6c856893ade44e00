from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from scheduler import process, stderr
from scheduler.health import Health
from scheduler.lifeline import INTERRUPTED
from scheduler.service import Backoff, Service, Unavailable, Wake, run_loop, until_available
from tests.support import until

NOW = Backoff(base=0.0)


async def test_a_wake_set_many_times_wakes_once() -> None:
    wake = Wake()
    wake.set()
    wake.set()
    assert await wake.wait(0)
    assert not await wake.wait(0)


async def test_a_wake_ends_a_wait_that_has_begun() -> None:
    wake = Wake()
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.lowlevel.checkpoint)
        group.start_soon(lambda: _call(wake.set))
        assert await wake.wait(None)


async def _call(function: object) -> None:
    assert callable(function)
    function()


async def test_a_loop_runs_again_after_the_delay_that_its_step_returned_or_when_woken(health: Health) -> None:
    rounds: list[int] = []
    delays: list[float | None] = [0, None, None]

    async def step() -> float | None:
        rounds.append(1)
        return delays.pop(0)

    async with Service("s", health=health) as service:
        wake = service.loop("l", step)
        await until(lambda: len(rounds) == 2)
        await anyio.lowlevel.checkpoint()
        assert len(rounds) == 2
        wake.set()
        await until(lambda: len(rounds) == 3)


async def test_a_failing_step_is_retried_reported_and_recovers(health: Health) -> None:
    outcomes: list[Exception | None] = [Unavailable("away"), ValueError("bug"), None]
    seen: list[Exception] = []
    done = anyio.Event()

    async def step() -> float | None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        done.set()
        return None

    def note(error: Exception) -> None:
        component = health.snapshot()["s.l"]
        assert not component.ok
        assert str(error) in component.detail
        assert component.failures == len(seen) + 1
        seen.append(error)

    async with Service("s", health=health) as service:
        service.loop("l", step, on_error=note, backoff=NOW)
        await done.wait()
        await until(lambda: health.ok)
    assert [type(error) for error in seen] == [Unavailable, ValueError]


async def test_a_wake_does_not_shorten_a_backoff(health: Health) -> None:
    attempts: list[int] = []
    wake = Wake()

    async def step() -> float | None:
        attempts.append(1)
        wake.set()
        raise ValueError

    stop = anyio.Event()

    class Long(Backoff, frozen=True):
        def delay(self, failures: int) -> float:
            return 3600.0 * failures

    async with anyio.create_task_group() as group:

        async def run() -> None:
            await run_loop("l", step, wake=wake, health=health, stop=stop, backoff=Long())

        group.start_soon(run)
        await until(lambda: attempts)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert len(attempts) == 1
        stop.set()  # but stopping does


async def test_a_backoff_ends_when_what_was_missing_is_back_or_the_service_drains(health: Health) -> None:
    attempts: list[int] = []
    back = Wake()

    async def step() -> float | None:
        attempts.append(1)
        raise Unavailable

    class Long(Backoff, frozen=True):
        def delay(self, failures: int) -> float:
            return 3600.0 * failures

    async with Service("s", health=health) as service:
        service.loop("l", step, backoff=Long(), back=back)
        await until(lambda: attempts)
        back.set()
        await until(lambda: len(attempts) == 2)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert len(attempts) == 2
        assert await service.drain(5.0)


def test_backoffs_grow_to_their_cap_and_are_fully_jittered() -> None:
    backoff = Backoff(base=1.0, cap=10.0, growth=2.0)
    for failures, ceiling in [(1, 2.0), (2, 4.0), (3, 8.0), (4, 10.0), (5000, 10.0)]:
        delays = [backoff.delay(failures) for _ in range(300)]
        assert 0 <= min(delays) < 0.1 * ceiling
        assert 0.9 * ceiling < max(delays) <= ceiling


async def test_a_loop_never_waits_for_longer_than_a_second_after_a_failure(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def pause(seconds: float, *_: object) -> None:
        pauses.append(seconds)
        await anyio.lowlevel.checkpoint()

    async def step() -> float | None:
        raise Unavailable

    monkeypatch.setattr("scheduler.service._pause", pause)
    async with Service("s", health=health) as service:
        service.loop("l", step)
        await until(lambda: len(pauses) >= 100)
    assert 0.5 < max(pauses) <= 1.0


async def test_draining_lets_a_step_finish_and_leaves_nothing_behind(health: Health) -> None:
    begun, release, finished = anyio.Event(), anyio.Event(), anyio.Event()

    async def step() -> float | None:
        begun.set()
        await release.wait()
        finished.set()
        return 0

    async with Service("s", health=health) as service:
        service.loop("l", step)
        await begun.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(service.drain, 10.0)
            await until(service.stopping.is_set)
            assert not finished.is_set()
            release.set()
        assert finished.is_set()
    assert health.snapshot() == {}


async def test_a_loop_that_does_not_drain_goes_on_while_the_others_end(health: Health) -> None:
    rounds = 0
    asked_for = anyio.Event()

    async def helper() -> float | None:
        nonlocal rounds
        rounds += 1
        if service.stopping.is_set():
            asked_for.set()
        return 0

    async def needing() -> float | None:
        await asked_for.wait()
        return 0

    async with Service("s", health=health) as service:
        service.loop("helper", helper, drains=False)
        service.loop("needing", needing)
        await until(lambda: rounds)
        assert await service.drain(10.0)
        before = rounds
        await until(lambda: rounds > before, what="it goes on after the others have ended")


async def test_draining_gives_up_at_its_deadline_and_leaving_cancels_the_rest(health: Health) -> None:
    cancelled = anyio.Event()

    async def stubborn() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with Service("s", health=health) as service:
        service.start("t", stubborn, drains=True)
        assert not await service.drain(0.01)
    assert cancelled.is_set()


async def test_draining_does_not_wait_for_what_runs_until_cancelled(health: Health) -> None:
    async with Service("s", health=health) as service:
        service.start("t", anyio.sleep_forever)
        assert await service.drain(3600.0)


async def test_a_failing_task_ends_its_service_and_says_so(health: Health) -> None:
    async def broken() -> None:
        raise ValueError("broken")

    async def live() -> None:
        async with Service("s", health=health) as service:
            service.start("t", broken)
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await live()
    assert caught.group_contains(ValueError, match="broken")
    assert health.snapshot()["s.t"].detail == "ValueError: broken"


async def test_services_nest_and_the_inner_one_ends_first(health: Health) -> None:
    order: list[str] = []

    async def live(name: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            order.append(name)

    async with Service("outer", health=health) as outer:
        outer.start("t", live, "outer")
        async with Service("inner", health=health) as inner:
            inner.start("t", live, "inner")
            await anyio.wait_all_tasks_blocked()
    assert order == ["inner", "outer"]


async def test_waiting_for_a_dependency_retries_only_what_it_was_told_to(health: Health) -> None:
    outcomes: list[Exception | str] = [Unavailable("not yet"), Unavailable("nor now"), "here"]

    async def call() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert await until_available("db", call, health=health, backoff=NOW) == "here"
    assert health.snapshot()["db"].ok
    outcomes.append(ValueError("wrong password"))
    with pytest.raises(ValueError, match="wrong password"):
        await until_available("db", call, health=health, backoff=NOW)


def test_the_first_signal_drains_and_the_process_ends_well() -> None:
    async def main(stop: anyio.Event) -> None:
        await anyio.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()

    assert process.run_process(main) == 0


def test_a_second_signal_leaves_at_once() -> None:
    async def main(stop: anyio.Event) -> None:
        await anyio.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGINT)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep_forever()

    assert process.run_process(main) == INTERRUPTED


UNREAD = """
import os, signal, sys
import anyio
from scheduler import process, telemetry
from scheduler.domain.clock import SystemClock
from scheduler.health import Health
from scheduler.service import Service, Unavailable

telemetry.configure(role="r", level="info", layout="json")

async def main(stop):
    rounds = 0

    async def step():
        nonlocal rounds
        rounds += 1
        if rounds < 3:
            raise Unavailable("away")
        os.kill(os.getpid(), signal.SIGTERM)

    async with Service("s", health=Health(SystemClock())) as service:
        service.loop("l", step)
        await stop.wait()
        await service.drain(1)
    print("drained after", rounds, flush=True)

sys.exit(process.run_process(main))
"""


@pytest.mark.parametrize("lost", ["a reader that has gone", "a reader that does not read", "a full disk"])
def test_a_log_that_cannot_be_written_neither_ends_a_role_nor_keeps_it_from_draining(lost: str) -> None:
    read, unread = os.pipe()
    ends = [read, unread]
    if lost == "a full disk":
        ends.append(unread := os.open("/dev/full", os.O_WRONLY))
    elif lost == "a reader that has gone":
        os.close(ends.pop(0))
    else:
        fill(unread)
    try:
        done = subprocess.run(
            [sys.executable, "-c", UNREAD], stdout=subprocess.PIPE, stderr=unread, check=False, timeout=60
        )
    finally:
        for end in ends:
            os.close(end)
    assert (done.returncode, done.stdout) == (0, b"drained after 3\n")


def fill(pipe: int) -> None:
    """Write until nothing more goes in, and leave the descriptor as roles get theirs: it blocks."""
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, bytes(select.PIPE_BUF))
    os.set_blocking(pipe, True)


def test_a_line_after_one_that_was_cut_off_stands_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    read, written = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as reader, os.fdopen(written, "wb", buffering=0) as end:
        room = fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 2 * select.PIPE_BUF)
        monkeypatch.setattr(stderr, "_outlets", {})
        stderr.write(b"a" * 2 * room, written)
        stderr.write(b"lost\n", written)
        assert reader.read(room) == b"a" * room
        stderr.write(b"whole\n", written)
        stderr.write(b"another\n", written)
        assert reader.read(room) == b"\nwhole\nanother\n"


def test_supervisors_are_told_by_datagram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "n"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        process.notify("READY=1")
        assert listener.recv(100) == b"READY=1"
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
        process.notify("STOPPING=1")
