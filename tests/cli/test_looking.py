"""Tasks, runs, logs, queues, workers and dead letters, as the command line shows and changes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scheduler.cli import exits
from tests.cli.conftest import Done, Dts
from tests.support.waiting import until_sync


def submitted(remote: Dts, *words: object) -> Any:
    return remote("submit", *words).item


def ended(remote: Dts, run: str) -> Done:
    return remote("run", "wait", run, "--timeout", 20)


def die(remote: Dts, name: str, command: str) -> None:
    """Leave a dead letter of a task of that name."""
    run = submitted(remote, "--attempts", 2, "--name", name, "-c", "--", command)["last_run"]["id"]
    remote("task", "edit", name, "--set", 'retry={"max_attempts": 2, "initial_interval": 0}')
    assert ended(remote, run).item["state"] == "dead_letter"


def test_tasks_are_found_by_name_unless_several_have_it(remote: Dts) -> None:
    first = submitted(remote, "--name", "twin", "--", "true")
    assert remote("task", "show", "twin").item["id"] == first["id"]
    second = submitted(remote, "--name", "twin", "--", "true")
    done = remote("task", "show", "twin")
    assert done.code == exits.FAILURE
    assert first["id"] in done.err
    assert second["id"] in done.err
    assert remote("task", "show", "nobody").err.startswith("dts: no task is named 'nobody'")


def test_lists_say_when_there_is_more(remote: Dts) -> None:
    for _ in range(3):
        submitted(remote, "--tag", "some", "--", "true")
    short = remote("task", "list", "--tag", "some", "--limit", 2)
    assert len(short.items) == 2
    assert "--limit 0 shows all" in short.err
    assert len(remote("task", "list", "--tag", "some", "--limit", 0).items) == 3


def test_a_recurring_task_is_edited_paused_resumed_triggered_and_deleted(remote: Dts) -> None:
    task = submitted(remote, "--name", "nightly", "--schedule", "0 3 * * *", "--", "echo", "night")
    assert task["status"] == "scheduled"
    changed = remote("task", "edit", "nightly", "--set", 'retry={"max_attempts": 3}', "--set", "timeout=2h").item
    assert (changed["version"], changed["timeout"]) == (2, 7200)
    assert remote("task", "edit", "nightly", "--set", "timeout=2h").item["version"] == 2
    assert remote("task", "edit", "nightly", "--set", "timeout=").item["timeout"] == 3600
    assert remote("task", "pause", "nightly").item["paused"]
    assert not remote("task", "resume", "nightly").item["paused"]
    fires = remote("task", "plan", "nightly", "-n", 2).items
    assert [fire["local"][11:16] for fire in fires] == ["03:00", "03:00"]
    triggered = remote("task", "trigger", "nightly", "--wait")
    assert triggered.code == exits.OK
    assert triggered.out == "night\n"
    assert [run["trigger"] for run in remote("run", "list", "--task", "nightly").items] == ["manual"]
    assert remote("task", "delete", "nightly").item["result"] == "deleted"
    assert remote("task", "show", "nightly").code == exits.FAILURE


def test_an_unknown_field_is_refused_with_the_known_ones(remote: Dts) -> None:
    submitted(remote, "--name", "fieldless", "--", "true")
    done = remote("task", "edit", "fieldless", "--set", "tiemout=2h")
    assert done.code == exits.USAGE
    assert "timeout" in done.err


def test_tasks_come_from_files_of_several_shapes(remote: Dts, tmp_path: Path) -> None:
    file = tmp_path / "tasks"
    batch = [{"name": f"batch-{n}", "command": ["true"], "tags": ["batch"]} for n in range(3)]
    batch[2]["depends_on"] = [{"task": "batch-0"}, {"task": "batch-1"}]
    file.write_text(json.dumps(batch))
    created = remote("submit", "-f", file)
    assert len(created.items) == 3
    assert ended(remote, created.items[2]["run_id"]).item["state"] == "completed"
    file.write_text("\n".join(json.dumps(task) for task in batch[:2]))
    assert len(remote("submit", "--file", file).items) == 2
    file.write_text(json.dumps(batch[0], indent=1))
    single = remote("submit", "--file", file).item
    assert remote("task", "show", single["id"]).item["name"] == "batch-0"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            '{"name": "a", "command": "x"}\n{"name": "b"}\n{"command": 1}\n',
            ":2: Object missing required field `command`",
        ),
        ('[{"name": "a", "command": "x", "colour": 1}]', "unknown field `colour`"),
        ("", "nothing in it"),
        ("name: a", "malformed"),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_sent(dts: Dts, tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "tasks").write_text(text)
    done = dts("submit", "-f", tmp_path / "tasks")
    assert done.code == exits.USAGE
    assert complaint in done.err


def test_logs_can_be_read_afterwards_and_followed(remote: Dts) -> None:
    run = submitted(remote, "-c", "--", "printf 'a\\nb'; printf e >&2")["last_run"]["id"]
    ended(remote, run)
    assert sorted(remote("logs", run).out) == sorted("a\nbe")
    assert remote("logs", run, "--stream", "stderr").out == "e"
    followed = remote("logs", "-f", run)
    assert (followed.out, followed.err) == ("a\nb", "e")
    pieces = remote("logs", "-f", "--json", run).items
    assert "".join(piece["text"] for piece in pieces if piece["stream"] == "stdout") == "a\nb"


def test_one_attempt_and_one_stream_can_be_followed(remote: Dts) -> None:
    command = "echo out $DTS_ATTEMPT; echo err $DTS_ATTEMPT >&2; test $DTS_ATTEMPT = 2"
    run = submitted(remote, "--attempts", 2, "-c", "--", command)["last_run"]["id"]
    assert ended(remote, run).item["state"] == "completed"
    first = remote("logs", "-f", run, "--attempt", 1)
    assert (first.out, first.err) == ("out 1\n", "err 1\n")
    both = remote("logs", "-f", run, "--stream", "stderr")
    assert (both.out, both.err) == ("", "err 2\n")


def test_explain_says_what_a_run_waits_for(remote: Dts) -> None:
    run = submitted(remote, "--delay", "1h", "--", "true")["last_run"]["id"]
    assert [blocker["code"] for blocker in remote("run", "explain", run).item["blockers"]] == ["time"]
    assert remote("run", "cancel", run).item["cancelled"] == [run]
    again = remote("run", "cancel", run)
    assert again.code == exits.FAILURE
    assert "cancelled" in again.err


def test_a_paused_queue_holds_its_runs(remote: Dts) -> None:
    assert remote("queue", "pause", "default").item == {"name": "default", "paused": True}
    try:
        run = submitted(remote, "--", "true")["last_run"]["id"]
        assert "queue_paused" in {b["code"] for b in remote("run", "explain", run).item["blockers"]}
    finally:
        assert remote("queue", "resume", "default").code == exits.OK
    assert ended(remote, run).item["state"] == "completed"
    assert "default" in {queue["name"] for queue in remote("queue", "list").items}


def test_dead_letters_are_listed_replayed_and_discarded(remote: Dts) -> None:
    words = ("--attempts", 2, "--name", "doomed", "-c", "--", "exit 4")
    run = submitted(remote, *words)["last_run"]["id"]
    remote("task", "edit", "doomed", "--set", 'retry={"max_attempts": 2, "initial_interval": 0}')
    assert ended(remote, run).item["state"] == "dead_letter"
    assert [a["outcome"] for a in remote("run", "attempts", run).items] == ["failed", "failed"]
    letter = remote("dlq", "list", "--task", "doomed").item
    assert letter["reason"] == "exit:4"
    assert remote("dlq", "replay", letter["id"]).item["result"] == "replayed"
    assert ended(remote, run).item["state"] == "dead_letter"
    assert remote("dlq", "discard", "--task", "doomed", "--all").item["result"] == "discarded"
    assert remote("dlq", "list", "--task", "doomed").items == []


def test_letters_behind_a_canary_that_dies_again_are_open_again(remote: Dts) -> None:
    for name in ("bird-a", "bird-b"):
        die(remote, name, "exit 44")
    letters = [letter["id"] for letter in remote("dlq", "list", "--reason", "exit:44").items]
    decided = remote("dlq", "replay", *letters, "--canary", 1).items
    assert [item["result"] for item in decided] == ["replayed", "waiting"]
    until_sync(lambda: len(remote("dlq", "list", "--reason", "exit:44").items) == 2, seconds=20)
    assert remote("run", "show", decided[1]["run_id"]).item["state"] == "skipped"
    assert remote("dlq", "discard", "--reason", "exit:44").code == exits.OK


def test_letters_behind_one_that_is_refused_are_decided_too(remote: Dts, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kept", "deleted"):
        die(remote, name, "exit 45")
    assert remote("task", "delete", "deleted").code == exits.OK
    newest, oldest = (letter["id"] for letter in remote("dlq", "list", "--reason", "exit:45").items)
    monkeypatch.setattr("scheduler.cli.dead_letters._PAGE", 1)
    done = remote("dlq", "replay", "--reason", "exit:45")
    assert [(item["id"], item["result"]) for item in done.items] == [(newest, "refused"), (oldest, "replayed")]
    assert done.code == exits.FAILURE


def test_deciding_dead_letters_needs_to_be_told_which(dts: Dts) -> None:
    assert dts("dlq", "discard").code == exits.USAGE
    assert dts("dlq", "replay", "x", "--all").code == exits.USAGE


@pytest.mark.parametrize("given", [(), ("",), ("x", "")], ids=["none", "an empty one", "an empty one beside another"])
@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("task pause", "tasks"),
        ("run cancel", "runs"),
        ("run retry", "runs"),
        ("queue pause", "queues"),
        ("queue resume", "queues"),
        ("worker drain", "workers"),
        ("key revoke", "keys"),
        ("secret delete", "secrets"),
    ],
)
def test_a_command_that_acts_on_each_is_told_which(dts: Dts, command: str, what: str, given: tuple[str, ...]) -> None:
    done = dts(*command.split(), *given)
    assert (done.code, done.err) == (exits.USAGE, f"dts: say which {what}\n")


def test_workers_are_listed_and_an_unknown_one_cannot_be_drained(remote: Dts) -> None:
    assert remote("worker", "list").item["state"] == "live"
    assert "no worker begins with 'xyz'" in remote("worker", "drain", "xyz").err


def test_a_schedule_is_planned_without_a_server(dts: Dts) -> None:
    fires = dts("plan", "30 2 * * *", "--timezone", "Europe/Berlin", "-n", 400).items
    assert len(fires) == 400
    assert any("does not exist" in (fire["note"] or "") for fire in fires)
    wrong = dts("plan", "0 0 31 2 *")
    assert wrong.code == exits.USAGE
    assert "never comes" in wrong.err


def test_what_fires_next_is_listed_soonest_first(remote: Dts) -> None:
    for name, schedule in (("soon", "@every 1m"), ("late", "0 0 1 1 *")):
        submitted(remote, "--name", name, "--schedule", schedule, "--", "true")
    names = [task["name"] for task in remote("plan", "-n", "1000").items]
    assert names.index("soon") < names.index("late")
    for name in ("soon", "late"):
        remote("task", "delete", "--cascade", name)


def test_checkpoints_of_shell_tasks(dts: Dts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "inside a task" in dts("checkpoint", "save", "/dev/null").err
    monkeypatch.setenv("DTS_CHECKPOINT_FILE", str(tmp_path / "checkpoint"))
    assert dts("checkpoint", "load").code == exits.FAILURE
    (tmp_path / "state").write_text("page 7")
    assert dts("checkpoint", "save", tmp_path / "state").code == exits.OK
    assert dts("checkpoint", "load").out == "page 7"


def test_the_checkpoint_of_a_run_can_be_read_from_anywhere(remote: Dts) -> None:
    write = 'echo 5 > "$DTS_CHECKPOINT_FILE.new"; mv "$DTS_CHECKPOINT_FILE.new" "$DTS_CHECKPOINT_FILE"; sleep 600'
    run = submitted(remote, "-c", "--", write)["last_run"]["id"]
    assert until_sync(lambda: remote("checkpoint", "load", "--run", run).out, seconds=30) == "5\n"
    remote("run", "cancel", run)
    later = submitted(remote, "--delay", "1h", "--", "true")["last_run"]["id"]
    none = remote("checkpoint", "load", "--run", later)
    assert (none.code, none.out, none.err) == (exits.FAILURE, "", "")
    unknown = remote("checkpoint", "load", "--run", "00000000-0000-7000-8000-000000000000")
    assert (unknown.code, "no run" in unknown.err) == (exits.FAILURE, True)
    remote("run", "cancel", later)
