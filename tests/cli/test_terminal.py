"""What people see on a terminal, and programs in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from scheduler.cli import exits
from tests.cli.conftest import Dts

CHECKOUT = Path(__file__).parents[2]


def on_terminal(server: str, *words: str, **env: str) -> str:
    """Run `dts` with a terminal as stdout; return what it shows there."""
    leader, follower = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm", "DTS_SERVER": server, **env}
    process = subprocess.Popen(
        [sys.executable, "-m", "scheduler", *words],
        stdout=follower,
        stderr=subprocess.PIPE,
        cwd=CHECKOUT,
        env=environment,
    )
    os.close(follower)
    shown = b""
    with process:
        try:
            while chunk := os.read(leader, 65536):
                shown += chunk
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(leader)
    return shown.decode()


def test_a_terminal_gets_a_table_with_colours_unless_asked_not_to(remote: Dts, server: str) -> None:
    task = remote("submit", "--name", "colourful", "--delay", "1h", "--", "echo", "x" * 200).item
    plain = on_terminal(server, "task", "list", "--name", "colourful", NO_COLOR="1")
    head, row = plain.splitlines()
    assert head.split() == ["task", "name", "status", "last", "run", "command"]
    assert row.startswith(f"{task['id']}  colourful  pending")
    coloured = on_terminal(server, "task", "list", "--name", "colourful")
    assert "\x1b[34mpending" in coloured
    assert on_terminal(server, "task", "list", "--name", "colourful", "--json").startswith("{")
    assert "1h" not in on_terminal(server, "task", "show", "colourful", NO_COLOR="1").splitlines()[0]


def test_a_reader_that_has_had_enough_is_no_error(remote: Dts, server: str) -> None:
    for _ in range(2):
        remote("submit", "--tag", "piped", "--", "echo", "x" * 50_000)
    line = f"{sys.executable} -m scheduler task list --tag piped | head -c 10; echo ${{PIPESTATUS[0]}}"
    env = {"PATH": os.environ["PATH"], "DTS_SERVER": server}
    done = subprocess.run(["/bin/bash", "-c", line], capture_output=True, text=True, cwd=CHECKOUT, env=env, check=True)
    assert done.stderr == ""
    assert done.stdout.endswith(f"{exits.OK}\n")


def test_a_program_that_follows_a_run_reads_each_piece_when_it_is_written(remote: Dts, server: str) -> None:
    run = remote("submit", "-c", "--", "echo early; sleep 20").item["last_run"]["id"]
    line = [sys.executable, "-m", "scheduler", "logs", "-f", "--json", run]
    env = {"PATH": os.environ["PATH"], "DTS_SERVER": server}
    with subprocess.Popen(line, stdout=subprocess.PIPE, cwd=CHECKOUT, env=env) as process:
        try:
            assert process.stdout is not None
            assert b"early" in process.stdout.readline()
            assert remote("run", "show", run).item["state"] == "running"
        finally:
            remote("run", "cancel", run)
            process.kill()


def test_help_is_quick_because_it_loads_no_client() -> None:
    code = "import sys; from scheduler.cli import run; run(['--help']); print('httpx2' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert done.stderr == "False\n"
    for command in ("submit", "task", "run", "logs", "dlq", "queue", "plan", "crontab", "checkpoint"):
        assert f" {command} " in done.stdout
