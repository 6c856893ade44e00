from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from scheduler.domain.errors import InvalidInput
from scheduler.domain.task import Dependency, TaskSpec
from scheduler.domain.workflows import (
    LARGEST_PARAMETERS,
    WorkflowSpec,
    carrier_of,
    check_start,
    check_unfolding,
    edges_of,
    node_spec,
    normalised,
    outcome,
    to_rerun,
)

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def task(name: str, *after: str, on: Any = "success", **fields: Any) -> TaskSpec:
    return TaskSpec(name=name, command="true", depends_on=[Dependency(task=a, on=on) for a in after], **fields)


def workflow(*tasks: TaskSpec, **fields: Any) -> WorkflowSpec:
    return WorkflowSpec(name="w", tasks=list(tasks), **fields)


LARGE = {"X": "x" * (LARGEST_PARAMETERS - 10)}
LINE = workflow(task("a"), task("b", "a"), task("c", "b"))


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        (workflow(task("a"), task("a")), "/tasks/1/name"),
        (workflow(task("a", "b"), task("b", "a")), "/tasks/0/depends_on/0"),
        (workflow(task("a", "elsewhere")), "/tasks/0/depends_on/0/task"),
        (workflow(task("a", schedule="@daily")), "/tasks/0/schedule"),
        (workflow(task("a", timeout=0)), "/tasks/0/timeout"),
        (workflow(task("a"), schedule="every day"), "/schedule"),
        (workflow(task("a"), timezone="Mars"), "/timezone"),
        (workflow(task("a"), parameters={"a b": "x"}), "/parameters"),
        (workflow(task("a"), parameters={"DTS_RUN_ID": "x"}), "/parameters"),
        (workflow(task("a"), parameters={"TRACEPARENT": "x"}), "/parameters"),
        (workflow(task("a"), parameters={"X": "x" * LARGEST_PARAMETERS}), "/parameters"),
        (workflow(task("a", env={f"E{n}": "x" * 100_000 for n in range(10)}), parameters=LARGE), "/parameters"),
        (WorkflowSpec(name="a/b", tasks=[task("a")]), "/name"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_place(spec: WorkflowSpec, pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        normalised(spec, NOW)
    assert pointer in [error.pointer for error in refused.value.errors]


def test_the_carrier_has_the_schedule_and_the_tasks_have_the_parameters() -> None:
    spec = normalised(workflow(task("a", timeout="2m"), schedule="@daily", jitter="5m", parameters={"X": "1"}), NOW)
    carrier = carrier_of(spec)
    assert (carrier.name, carrier.schedule, carrier.jitter, carrier.executor) == ("w", "@daily", 300.0, "workflow")
    assert spec.tasks[0].timeout == 120.0
    assert node_spec(task("a", env={"Y": "own"}), {"X": "1", "Y": "2"}).env == {"X": "1", "Y": "own"}


def test_a_run_begins_only_with_what_fits_into_its_tasks_beside_the_defaults_that_it_leaves() -> None:
    spec = normalised(workflow(task("a"), parameters={**LARGE, "Y": ""}), NOW)
    check_start(spec, {"X": "", "Y": LARGE["X"]})
    for given in ({"Y": "a little more"}, {"X": LARGE["X"] * 2}):
        with pytest.raises(InvalidInput, match="bytes"):
            check_start(spec, given)


def test_what_an_older_release_let_begin_is_unfolded_unless_the_leader_could_not_bear_it() -> None:
    tasks = [task(f"t{n}") for n in range(1000)]
    check_unfolding(workflow(*tasks[:3]), {"TRACEPARENT": "x" * 1_000_000})
    with pytest.raises(InvalidInput):
        check_unfolding(workflow(*tasks), {"X": "x" * 1_000_000})


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["completed"] * 3, ("completed", None)),
        (["completed", "failed", "skipped"], ("failed", "task_failed:b")),
        (["dead_letter", "skipped", "skipped"], ("failed", "task_dead_letter:a")),
        (["completed", "cancelled", "skipped"], ("failed", "task_cancelled:b")),
    ],
)
def test_a_workflow_run_fails_with_the_first_task_that_did(states: Any, expected: Any) -> None:
    assert outcome(["a", "b", "c"], states, edges_of(LINE)) == expected


def test_a_failure_that_another_task_is_there_for_does_not_fail_the_run() -> None:
    edges = edges_of(workflow(task("a"), task("mend", "a", on="failure"), task("next", "a")))
    assert outcome(["a", "mend", "next"], ["failed", "completed", "skipped"], edges) == ("completed", None)
    assert outcome(["a", "mend", "next"], ["failed", "failed", "skipped"], edges) == ("failed", "task_failed:mend")


@pytest.mark.parametrize(
    ("states", "missed"),
    [(["completed", "completed", "skipped"], "c"), (["completed", "skipped", "skipped"], "b"), (["skipped"] * 3, "a")],
)
def test_a_task_that_was_skipped_though_all_it_waited_for_came_fails_the_run_so_that_a_rerun_runs_it(
    states: Any, missed: str
) -> None:
    edges = edges_of(LINE)
    assert outcome(["a", "b", "c"], states, edges) == ("failed", f"task_skipped:{missed}")
    assert "abc".index(missed) in to_rerun(states, edges)


def test_a_rerun_leaves_out_what_completed_and_what_can_still_not_run() -> None:
    assert to_rerun(["completed", "failed", "skipped"], edges_of(LINE)) == {1, 2}
    assert to_rerun(["completed"] * 3, edges_of(LINE)) == set()
    branches = edges_of(workflow(task("a"), task("mend", "a", on="failure"), task("next", "a"), task("b")))
    assert to_rerun(["completed", "skipped", "completed", "failed"], branches) == {3}
    assert to_rerun(["failed", "completed", "skipped", "completed"], branches) == {0, 2}
