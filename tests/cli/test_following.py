"""Waiting for a run, and being interrupted meanwhile."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from scheduler.lifeline import INTERRUPTED
from tests.cli.conftest import Dts
from tests.cli.test_terminal import CHECKOUT
from tests.support.waiting import until_sync

BUSY = "echo $$ started; sleep 30"


@pytest.fixture(autouse=True)
def _in_the_foreground() -> Iterator[None]:
    """Have Ctrl-C mean something to what is started: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def waiting(server: str, remote: Dts, name: str, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run `dts submit --wait` on a terminal; yield it, with the terminal's other end, once the run executes."""
    leader, follower = pty.openpty()
    line = ["submit", "--wait", "--name", name, "-c", "--timeout", "60s", *words, "--", BUSY]
    process = subprocess.Popen(
        [sys.executable, "-m", "scheduler", *line],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=follower,
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], "TERM": "xterm", "DTS_SERVER": server},
    )
    os.close(follower)
    try:
        assert process.stdout is not None
        assert b"started" in process.stdout.readline()
        yield process, leader
        process.wait(20)
    finally:
        process.kill()
        process.communicate()
        os.close(leader)
        for run in remote("run", "list", "--task", name).items:
            remote("run", "cancel", run["id"])


def shown(terminal: int, text: str) -> str:
    """Read the terminal until it shows a text."""
    seen = ""
    while text not in seen:
        seen += os.read(terminal, 65536).decode()
    return seen


def state_of(remote: Dts, name: str) -> str:
    (run,) = remote("run", "list", "--task", name).items
    return str(run["state"])


@pytest.mark.parametrize(("answer", "state"), [(b"y\n", "cancelled"), (b"\n", "running")])
def test_whoever_interrupts_a_wait_is_asked_what_becomes_of_the_run(
    server: str, remote: Dts, answer: bytes, state: str
) -> None:
    name = f"asked-{state}"
    with waiting(server, remote, name) as (process, terminal):
        process.send_signal(signal.SIGINT)
        shown(terminal, "too? [y/N] ")
        os.write(terminal, answer)
        assert process.wait(20) == INTERRUPTED
        assert state_of(remote, name) == state


def test_a_build_system_that_stops_its_job_stops_the_run(server: str, remote: Dts) -> None:
    with waiting(server, remote, "job", "--on-interrupt", "cancel") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == INTERRUPTED
        until_sync(lambda: state_of(remote, "job") == "cancelled")
