"""Failpoints: nothing when off; each action, once, in one process when armed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from scheduler import failpoints
from scheduler.failpoints import Point, reach
from tests.support import until_sync
from tests.support.failpoints import Failpoints, failing, held
from tests.support.up import CHECKOUT

_REACH = """
import anyio
from scheduler.failpoints import Point, reach, reach_now
async def main():
    await reach(Point.PROMOTED, LookupError)
    reach_now(Point.TREE_EMPTY)
    print("passed")
anyio.run(main)
"""


@pytest.fixture
def armed(tmp_path: Path) -> Failpoints:
    return Failpoints(tmp_path / "points")


def start(armed: Failpoints) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _REACH],
        env={**os.environ, **armed.environment},
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_point_stands_in_the_code_and_only_declared_ones_do() -> None:
    code = "".join(path.read_text() for path in (CHECKOUT / "scheduler").rglob("*.py") if path.name != "failpoints.py")
    assert set(re.findall(r"reach(?:_now)?\(Point\.(\w+)", code)) == set(Point.__members__)


def test_nothing_happens_where_nothing_is_armed(armed: Failpoints) -> None:
    armed.arm(Point.CLAIM_SENDING, "crash")
    assert start(armed).communicate()[0] == "passed\n"
    assert armed.disarm(Point.CLAIM_SENDING)


@pytest.mark.parametrize("point", [Point.PROMOTED, Point.TREE_EMPTY])
def test_a_crash_happens_once(armed: Failpoints, point: Point) -> None:
    armed.arm(point, "crash")
    process = start(armed)
    assert process.communicate()[0] == ""
    assert process.returncode == -signal.SIGKILL
    assert armed.reached(point) == process.pid
    assert start(armed).communicate()[0] == "passed\n"


def test_an_error_is_the_one_that_the_place_names(armed: Failpoints) -> None:
    armed.arm(Point.PROMOTED, "error")
    assert "LookupError: injected at promote.committed" in start(armed).communicate()[1]


@pytest.mark.parametrize("point", [Point.PROMOTED, Point.TREE_EMPTY])
def test_a_pause_lasts_until_it_is_released(armed: Failpoints, point: Point) -> None:
    armed.arm(point, "pause")
    process = start(armed)
    until_sync(lambda: armed.reached(point) == process.pid)
    assert process.poll() is None
    armed.release(point)
    assert process.communicate()[0] == "passed\n"


def test_a_stopped_process_goes_on_when_told_to(armed: Failpoints) -> None:
    armed.arm(Point.PROMOTED, "stop")
    process = start(armed)
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    process.send_signal(signal.SIGCONT)
    assert process.communicate()[0] == "passed\n"


async def test_in_this_process_a_point_can_be_held_and_made_to_fail() -> None:
    with held(Point.PROMOTED) as gate:
        async with anyio.create_task_group() as group:
            group.start_soon(reach, Point.PROMOTED)
            await gate.reached.wait()
            gate.go.set()
    with failing(Point.PROMOTED, LookupError("once")) as left:
        with pytest.raises(LookupError, match="once"):
            await reach(Point.PROMOTED)
        await reach(Point.PROMOTED)
        assert not left
    assert not failpoints.handlers
