from __future__ import annotations

import random
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.cli.crontab_plan import plan_import
from scheduler.domain.task import TaskSpec
from scheduler.wire.tasks import Task


def line(number: int, program: str, schedule: str = "@daily") -> TaskSpec:
    labels = {"crontab": f"tab:{number}"}
    return TaskSpec(name=f"tab-{number}-{program}", command=program, schedule=schedule, labels=labels)


def stored(spec: TaskSpec, number: int = 0) -> Task:
    """The task that a server gives back: every default said, durations in seconds."""
    now = datetime(2030, 1, 1, tzinfo=UTC)
    fields = {name: getattr(spec, name) for name in TaskSpec.__struct_fields__} | {
        "jitter": 0,
        "queue": "".join("default"),
    }
    return Task(
        **fields,
        id=UUID(int=number),
        namespace="default",
        status="scheduled",
        version=1,
        created_at=now,
        created_by="test",
        updated_at=now,
        updated_by="test",
        paused=False,
        next_fire_at=None,
        last_run=None,
    )


def actions(wanted: list[TaskSpec], existing: list[Task]) -> tuple[list[str], list[str]]:
    steps, left = plan_import(wanted, existing)
    return [step.action for step in steps], [task.name for task in left]


def test_what_has_not_been_imported_is_created() -> None:
    assert actions([line(1, "a"), line(2, "b")], []) == (["create", "create"], [])


def test_what_says_the_same_is_kept() -> None:
    lines = [line(1, "a"), line(2, "b")]
    assert actions(lines, [stored(spec, n) for n, spec in enumerate(lines)]) == (["keep", "keep"], [])


def test_lines_that_move_keep_their_tasks_though_their_names_say_otherwise() -> None:
    before = [stored(line(1, "x", "@daily"), 1), stored(line(2, "x", "@weekly"), 2)]
    wanted = [line(1, "x", "@hourly"), line(2, "x", "@daily"), line(3, "x", "@weekly")]
    steps, left = plan_import(wanted, before)
    assert [(step.action, step.task and step.task.id.int) for step in steps] == [
        ("create", None),
        ("move", 1),
        ("move", 2),
    ]
    assert [step.spec.name for step in steps] == ["tab-1-x-2", "tab-1-x", "tab-2-x"]
    assert left == []


def test_an_edited_line_updates_its_task_and_a_lost_one_is_left_over() -> None:
    before = [stored(line(1, "a"), 1), stored(line(2, "b"), 2)]
    assert actions([line(1, "a", "@hourly")], before) == (["update"], ["tab-2-b"])


def test_equal_lines_are_as_many_tasks_as_there_are_lines() -> None:
    before = [stored(line(1, "a"), 1), stored(line(5, "a"), 5)]
    steps, left = plan_import([line(5, "a"), line(6, "a"), line(7, "a")], before)
    assert [(step.action, step.task and step.task.id.int) for step in steps] == [
        ("keep", 5),
        ("move", 1),
        ("create", None),
    ]
    assert left == []


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8), st.randoms())
def test_importing_twice_changes_nothing_the_second_time(
    old: list[str], new: list[str], shuffle: random.Random
) -> None:
    existing = [stored(line(n, program), n) for n, program in enumerate(old, 1)]
    wanted = [line(n, program) for n, program in enumerate(new, 1)]
    steps, left = plan_import(wanted, existing)
    assert len({step.task.id for step in steps if step.task} | {task.id for task in left}) == len(existing)
    after = [stored(step.spec, 100 + n) for n, step in enumerate(steps)]
    assert len({task.name for task in after} | {task.name for task in left}) == len(after) + len(left)
    shuffle.shuffle(after)
    again, none_left = plan_import(wanted, after)
    assert {step.action for step in again} <= {"keep"}
    assert none_left == []


def test_a_field_that_was_changed_by_other_means_is_an_update() -> None:
    changed = msgspec.structs.replace(stored(line(1, "a"), 1), timeout=5.0)
    assert actions([line(1, "a")], [changed]) == (["update"], [])


@pytest.mark.parametrize("label", ["other", "crontab"])
def test_only_the_import_label_may_differ_silently(label: str) -> None:
    spec = line(1, "a")
    changed = msgspec.structs.replace(stored(spec, 1), labels={**spec.labels, label: "tab:9"})
    assert actions([spec], [changed])[0] == (["update"] if label == "other" else ["move"])
