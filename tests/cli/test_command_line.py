from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from scheduler.cli import exits, flags, run
from scheduler.worker import linux

ROOT = Path(__file__).parents[2]


def dts(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scheduler", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **env},
    )


@pytest.mark.parametrize("command", sorted(flags.PROCESSES))
def test_help_explains_every_flag_that_the_quick_parser_knows(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == exits.OK
    shown = capsys.readouterr().out
    for flag in flags.COMMON | flags.PROCESSES[command]:
        assert f"{flag} " in shown


def test_plain_flags_need_no_command_line_library() -> None:
    assert flags.parse("up", ["--port", "1", "--data-dir=/x"]) == {"api.port": "1", "up.data_dir": "/x"}
    assert flags.parse("worker", []) == {}


@pytest.mark.parametrize(
    "words", [["--help"], ["--prt", "1"], ["--port"], ["--port", "--x"], ["1"], ["--port", "1", "--port", "2"]]
)
def test_everything_else_is_left_to_the_command_line_library(words: list[str]) -> None:
    assert flags.parse("up", words) is None


def test_unknown_flags_and_commands_are_usage_errors() -> None:
    for words in (["up", "--prt", "1"], ["nope"], ["config", "nope"]):
        done = dts(*words)
        assert done.returncode == exits.USAGE
        assert done.stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        ("submit", "--", "cat", "caf\udce9"),
        ("task", "show", "caf\udce9"),
        ("crontab", "import", "caf\udce9"),
        ("api", "--host", "caf\udce9"),
    ],
    ids=lambda words: words[0],
)
def test_an_argument_that_is_not_utf8_is_said_to_be_before_anything_is_done(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(list(words)) == exits.USAGE
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"dts: argument {len(words)} is not UTF-8\n")


def test_a_role_without_servers_says_what_to_set() -> None:
    done = dts("api")
    assert done.returncode == exits.CONFIG
    assert "DTS_DATABASE_URL" in done.stderr


@pytest.mark.skipif(not linux.SUPPORTED, reason="elsewhere there is no guard")
@pytest.mark.parametrize(
    "program", [("scheduler", "worker"), ("scheduler.worker.guard",)], ids=["dts worker", "dts-worker"]
)
@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        (("--concurrency", "-1"), "worker.concurrency"),
        (("--lease", "-5"), "worker.lease"),
        (("--name", "-5"), "database.url"),
    ],
)
def test_a_worker_whose_flag_is_a_negative_number_starts_once_and_says_what_is_wrong(
    program: tuple[str, ...], flag: tuple[str, str], complaint: str
) -> None:
    words = [sys.executable, "-m", *program, *flag]
    alone = {"PATH": "/usr/bin:/bin"}
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=alone, start_new_session=True
    ) as process:
        try:
            _, said = process.communicate(timeout=20)
            assert process.returncode == exits.CONFIG
            assert complaint in said
            assert not members(process.pid)
        finally:
            while left := members(process.pid):  # one that starts another may do so once more
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def members(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if process.info["status"] != psutil.STATUS_ZOMBIE and os.getsid(process.pid) == session:
                found.append(process.pid)
    return found


def test_config_check_says_everything_and_config_show_no_secret() -> None:
    bad = dts("config", "check", DTS_API__PORT="x", DTS_LOG__LEVEL="y")
    assert bad.returncode == exits.CONFIG
    assert len(bad.stderr.splitlines()) == 2
    good = dts("config", "show", DTS_DATABASE_URL="postgresql://u:hunter2@h/d")
    assert good.returncode == exits.OK
    assert "hunter2" not in good.stdout
    assert '"postgresql://u:***@h/d"  # DTS_DATABASE_URL' in good.stdout


def test_migrate_applies_once_and_tells_how_it_stands(empty_database_url: str) -> None:
    before = dts("migrate", "status", DTS_DATABASE_URL=empty_database_url)
    assert before.returncode == exits.FAILURE
    assert not any(json.loads(line)["applied"] for line in before.stdout.splitlines())
    first = dts("migrate", "up", DTS_DATABASE_URL=empty_database_url)
    assert first.returncode == exits.OK
    assert len(first.stdout.splitlines()) == len(before.stdout.splitlines())
    assert all(json.loads(line)["applied"] for line in first.stdout.splitlines())
    again = dts("migrate", "up", DTS_DATABASE_URL=empty_database_url)
    assert (again.stdout, again.stderr) == ("", "dts: nothing to do\n")
    after = dts("migrate", "status", DTS_DATABASE_URL=empty_database_url)
    assert after.returncode == exits.OK
    assert after.stdout == first.stdout


def test_an_unreachable_database_is_said_to_be(tmp_path: Path) -> None:
    done = dts("migrate", "up", "--database-url", f"postgresql://x@/y?host={tmp_path}")
    assert done.returncode == exits.UNAVAILABLE
    assert "cannot connect" in done.stderr
