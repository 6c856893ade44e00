from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.cli import exits, flags, run


def dts(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scheduler", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
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


def test_a_role_without_servers_says_what_to_set() -> None:
    done = dts("api")
    assert done.returncode == exits.CONFIG
    assert "DTS_DATABASE_URL" in done.stderr


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
    assert "missing" in before.stdout
    first = dts("migrate", "up", DTS_DATABASE_URL=empty_database_url)
    assert first.returncode == exits.OK
    assert "applied" in first.stdout
    assert dts("migrate", "up", DTS_DATABASE_URL=empty_database_url).stdout == "nothing to do\n"
    after = dts("migrate", "status", "--json", DTS_DATABASE_URL=empty_database_url)
    assert after.returncode == exits.OK
    assert '"applied":true' in after.stdout


def test_an_unreachable_database_is_said_to_be(tmp_path: Path) -> None:
    done = dts("migrate", "up", "--database-url", f"postgresql://x@/y?host={tmp_path}")
    assert done.returncode == exits.UNAVAILABLE
    assert "cannot connect" in done.stderr
