from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from scheduler.cli import exits
from tests.cli.conftest import Dts


def test_a_submitted_command_is_answered_with_its_task_at_once(remote: Dts) -> None:
    done = remote("submit", "--name", "greet", "--env", "A=1=2", "--tag", "x", "--priority", 7, "--", "echo", "--hi")
    assert done.code == exits.OK
    task = done.item
    assert task["command"] == ["echo", "--hi"]
    assert (task["name"], task["env"], task["tags"], task["priority"]) == ("greet", {"A": "1=2"}, ["x"], 7)
    assert task["last_run"]["id"]


def test_waiting_shows_both_streams_and_exits_with_the_commands_code(remote: Dts) -> None:
    done = remote("submit", "--wait", "-c", "--", "echo out; echo err >&2; exit 3")
    assert done.code == 3
    assert done.out == "out\n"
    assert "err\n" in done.err
    assert "failed: exit:3" in done.err


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("true", exits.OK, ""),
        ("kill -KILL $$", 128 + 9, "failed: signal:KILL"),
        ("exec /no/such/program", 127, "failed: exit:127"),
    ],
)
def test_the_exit_code_tells_how_the_command_ended(remote: Dts, command: str, code: int, said: str) -> None:
    done = remote("submit", "--wait", "-c", "--", command)
    assert done.code == code
    assert said in done.err


def test_a_program_that_is_not_there_is_a_failure_with_its_reason(remote: Dts) -> None:
    done = remote("submit", "-w", "--", "/no/such/program")
    assert done.code == exits.FAILURE
    assert "failed: spawn_error:" in done.err


def test_every_attempt_is_shown_while_waiting(remote: Dts) -> None:
    done = remote("submit", "-w", "-c", "--attempts", 1, "--timeout", "1h", "--", "echo attempt $DTS_ATTEMPT")
    assert done.out == "attempt 1\n"


def test_standard_input_comes_from_a_file(remote: Dts, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("one\ntwo\n")
    done = remote("submit", "-w", "--stdin", tmp_path / "in", "--", "sort", "-r")
    assert done.out == "two\none\n"


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_standard_input_keeps_its_bytes(
    remote: Dts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piped: bool
) -> None:
    file = tmp_path / "in"
    file.write_bytes(b"a\r\nb\rc\r\n")
    if piped:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    done = remote("submit", "--stdin", "-" if piped else file, "--", "true")
    assert done.item["stdin"] == "a\r\nb\rc\r\n"


def test_a_wait_that_takes_too_long_leaves_the_run_alone(remote: Dts) -> None:
    done = remote("submit", "-w", "--wait-timeout", 0.01, "--delay", "1h", "--", "true")
    assert done.code == exits.RETRY
    assert "still pending" in done.err
    run = done.err.split()[2]
    assert remote("run", "show", run).item["state"] == "pending"
    assert remote("run", "cancel", run).code == exits.OK


def test_an_idempotency_key_makes_one_task(remote: Dts) -> None:
    ids = {remote("submit", "--key", "once", "--", "true").item["id"] for _ in range(2)}
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "no command"),
        (("--", ""), "no command"),
        (("--env", "NAME", "--", "true"), "write NAME=VALUE"),
        (("--priority", "12", "--", "true"), "priority"),
        (("--at", "tomorrow", "--", "true"), "run_at"),
        (("--stdin", "/no/such/file", "--", "true"), "No such file"),
        (("--stdin", sys.executable, "--", "true"), "utf-8"),
        (("--no-such-option", "--", "true"), "--no-such-option"),
    ],
)
def test_mistakes_are_found_before_anything_is_sent(dts: Dts, words: tuple[str, ...], complaint: str) -> None:
    done = dts("submit", *words)
    assert done.code == exits.USAGE
    assert complaint in done.err
    assert done.out == ""


def test_what_the_server_refuses_is_said_with_the_field(remote: Dts) -> None:
    done = remote("submit", "--schedule", "0 0 31 2 *", "--", "true")
    assert done.code == exits.FAILURE
    assert "/schedule" in done.err


def test_without_a_server_it_says_how_to_get_one(dts: Dts) -> None:
    done = dts("submit", "--", "true")
    assert done.code == exits.UNAVAILABLE
    assert "dts up" in done.err
    assert "--server" in done.err


def test_a_server_that_is_no_url_is_a_usage_error(dts: Dts) -> None:
    done = dts("submit", "--server", "localhost:8080", "--", "true")
    assert done.code == exits.USAGE
    assert "http://host:port" in done.err
