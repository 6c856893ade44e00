"""Many tasks from a file or a pipe."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from scheduler.cli import bulk, exits
from tests.cli.conftest import Dts


def tasks(*schedules: str | None) -> str:
    specs = [{"name": f"t{n}", "command": "true", "delay": "1h"} for n in range(len(schedules))]
    for spec, schedule in zip(specs, schedules, strict=True):
        if schedule is not None:
            spec |= {"schedule": schedule, "delay": None}
    return "".join(json.dumps({k: v for k, v in spec.items() if v is not None}) + "\n" for spec in specs)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BATCH_TASKS", 2)


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_what_comes_through_a_pipe_is_sent_batch_by_batch(remote: Dts, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, tasks(None, None, None, None, None).replace("\n", "\n\n"))
    done = remote("submit", "--file", "-")
    assert done.code == exits.OK
    assert len({item["id"] for item in done.items}) == 5


LINES = tasks(None, None, None, "0 0 31 2 *")
LIST = json.dumps([json.loads(line) for line in LINES.splitlines()], indent=2)


@pytest.mark.parametrize(
    ("text", "refused", "first", "rest"),
    [
        (LINES, "line 4", "line 3", "tail -n +3 {}"),
        (LIST, "task 4 of the list", "task 3 of the list", "jq -c '.[2:][]' {}"),
    ],
    ids=["lines", "list"],
)
def test_a_refused_batch_names_its_places_and_where_to_go_on(
    remote: Dts, tmp_path: Path, text: str, refused: str, first: str, rest: str
) -> None:
    file = tmp_path / "tasks"
    file.write_text(text)
    done = remote("submit", "--file", file)
    assert done.code == exits.FAILURE
    assert len(done.items) == 2
    assert f"{refused}: /schedule: " in done.err
    assert f"2 tasks were created; what follows, from {first} on, was not" in done.err
    assert f"{rest.format(file)} | dts submit --file -" in done.err


def test_a_pipe_that_breaks_off_says_what_was_taken(remote: Dts, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, tasks(None, None, None) + "{broken}\n")
    done = remote("submit", "--file", "-")
    assert done.code == exits.USAGE
    assert "-:4: JSON is malformed" in done.err
    assert len(done.items) == 2
    assert "2 tasks were created; what follows, from line 3 on, was not" in done.err


def test_a_file_with_a_bad_line_sends_nothing(dts: Dts, tmp_path: Path) -> None:
    file = tmp_path / "tasks.ndjson"
    file.write_text(tasks(None, None, None) + "{broken}\n")
    done = dts("submit", "--file", file)
    assert done.code == exits.USAGE
    assert "nothing was sent" in done.err


def test_a_file_and_a_command_exclude_each_other(dts: Dts, tmp_path: Path) -> None:
    for words in (("--", "true"), ("--name", "x"), ("--wait",)):
        assert dts("submit", "--file", tmp_path / "x", *words).code == exits.USAGE
