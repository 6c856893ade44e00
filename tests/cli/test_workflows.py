"""`dts workflow`: definitions, their runs, and what comes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scheduler.cli import exits
from tests.cli.conftest import Dts
from tests.support.waiting import until_sync


def written(directory: Path, name: str, *tasks: dict[str, Any], **fields: Any) -> Path:
    """A file that defines a workflow."""
    path = directory / f"{name}.json"
    path.write_text(json.dumps({"name": name, "tasks": tasks, **fields}))
    return path


def task(name: str, command: str, *after: str) -> dict[str, Any]:
    return {"name": name, "command": command, "depends_on": [{"task": other} for other in after]}


def ended(remote: Dts, workflow_run: str) -> dict[str, Any]:
    """The workflow run, once it has ended."""
    until_sync(lambda: remote("workflow", "status", workflow_run).item["finished_at"] is not None, seconds=20)
    found: dict[str, Any] = remote("workflow", "status", workflow_run).item
    return found


def test_a_workflow_is_created_replaced_listed_shown_and_deleted(remote: Dts, tmp_path: Path) -> None:
    path = written(tmp_path, "etl", task("load", "true"))
    assert remote("workflow", "create", "--file", path).item["version"] == 1
    again = remote("workflow", "create", "--file", path)
    assert again.code == exits.FAILURE
    assert "etl" in again.err
    path = written(tmp_path, "etl", task("load", "true"), task("report", "true", "load"), schedule="0 3 * * *")
    replaced = remote("workflow", "create", "--file", path, "--replace").item
    assert (replaced["version"], len(replaced["tasks"])) == (2, 2)
    assert "etl" in {workflow["name"] for workflow in remote("workflow", "list").items}
    assert [t["name"] for t in remote("workflow", "show", "etl").item["tasks"]] == ["load", "report"]
    assert remote("workflow", "delete", "etl").item == {"name": "etl", "result": "deleted"}
    assert remote("workflow", "show", "etl").code == exits.FAILURE


def test_a_workflow_comes_through_a_pipe(remote: Dts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with written(tmp_path, "piped", task("load", "true")).open() as piped:
        monkeypatch.setattr("sys.stdin", piped)
        assert remote("workflow", "create", "--file", "-").item["name"] == "piped"


def test_a_workflow_runs_with_its_parameters_and_is_listed(remote: Dts, tmp_path: Path) -> None:
    tasks = (task("say", 'test "$DAY" = monday'), task("then", "true", "say"))
    remote("workflow", "create", "--file", written(tmp_path, "daily", *tasks, parameters={"DAY": "sunday"}))
    started = remote("workflow", "run", "daily", "-p", "DAY=monday").item
    done = ended(remote, started["id"])
    assert (done["state"], done["parameters"]) == ("completed", {"DAY": "monday"})
    assert [(node["name"], node["state"]) for node in done["nodes"]] == [("say", "completed"), ("then", "completed")]
    assert [run["id"] for run in remote("workflow", "runs", "daily", "--state", "completed").items] == [started["id"]]
    assert remote("workflow", "runs", "daily", "--state", "failed").items == []


def test_a_failed_workflow_run_is_rerun_from_where_it_failed(remote: Dts, tmp_path: Path) -> None:
    tasks = (task("first", "true"), task("second", 'test "$DTS_ATTEMPT" = 2', "first"))
    remote("workflow", "create", "--file", written(tmp_path, "mended", *tasks))
    started = remote("workflow", "run", "mended").item["id"]
    assert ended(remote, started)["state"] == "failed"
    assert remote("workflow", "rerun", started).item["state"] == "pending"
    done = ended(remote, started)
    assert (done["state"], [node["attempt"] for node in done["nodes"]]) == ("completed", [1, 2])
    assert remote("workflow", "rerun", started).code == exits.FAILURE


def test_a_workflow_run_is_cancelled_with_its_tasks(remote: Dts, tmp_path: Path) -> None:
    tasks = (task("long", "sleep 60"), task("later", "true", "long"))
    remote("workflow", "create", "--file", written(tmp_path, "endless", *tasks))
    started = remote("workflow", "run", "endless").item["id"]
    until_sync(lambda: len(remote("workflow", "status", started).item["nodes"]) == 2, seconds=20)
    assert remote("workflow", "cancel", started).code == exits.OK
    assert ended(remote, started)["state"] == "cancelled"
    until_sync(
        lambda: (
            {node["state"] for node in remote("workflow", "status", started).item["nodes"]} <= {"cancelled", "skipped"}
        ),
        seconds=20,
    )


def test_what_is_wrong_with_a_workflow_is_said(remote: Dts, tmp_path: Path) -> None:
    circle = written(tmp_path, "circle", task("a", "true", "b"), task("b", "true", "a"))
    refused = remote("workflow", "create", "--file", circle)
    assert refused.code == exits.FAILURE
    assert "a" in refused.err
    assert remote("workflow", "show", "circle").code == exits.FAILURE
    assert remote("workflow", "run", "no-such").code == exits.FAILURE


@pytest.mark.parametrize(
    "words",
    [
        ("create", "--file", "/no/such/file.json"),
        ("run", "any", "-p", "no-equals-sign"),
        ("create",),
    ],
)
def test_a_wrong_command_line_reaches_no_server(dts: Dts, words: tuple[str, ...]) -> None:
    assert dts("workflow", *words).code == exits.USAGE
