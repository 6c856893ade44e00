"""What an import of a crontab has to do, given what earlier imports made: pure, so that importing again is safe.

The lines of one file are matched with the tasks that were made of it before (`labels.crontab` says `<file>:<line>`):

1. a task that says the same is kept, also where the line has moved (it keeps its name then);
2. else a task with the same name, which stands for the line number and the program, is updated: the line was edited;
3. else a task is created, under a name that none of them has.

Tasks that match no line are left over: the line is gone, or it is one that could not be read.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import msgspec

from scheduler.domain.task import TaskSpec
from scheduler.wire.tasks import Task

LABEL = "crontab"
TAG = "crontab"

Action = Literal["create", "update", "move", "keep"]


class Step(msgspec.Struct, frozen=True):
    """What one line needs; `task` is what there is already. `spec` is the definition that shall stand."""

    action: Action
    spec: TaskSpec
    task: Task | None = None


def source_of(task: TaskSpec) -> str | None:
    """Return the file that a task was imported from, None if it was not."""
    label = task.labels.get(LABEL)
    return None if label is None else label.rpartition(":")[0]


def plan_import(wanted: Sequence[TaskSpec], existing: Sequence[Task]) -> tuple[list[Step], list[Task]]:
    """Return a step for each wanted task of one file, in order, and the tasks that are left over."""
    steps: dict[int, Step] = {}
    rest = {task.id: task for task in existing}
    alike: dict[Hashable, list[Task]] = {}
    for task in existing:
        alike.setdefault(_essence(task), []).append(task)
    for exact in (True, False):  # lines that stand where they stood choose first
        for index, spec in enumerate(wanted):
            candidates = [task for task in alike.get(_essence(spec), ()) if task.id in rest]
            match = next((task for task in candidates if not exact or task.labels[LABEL] == spec.labels[LABEL]), None)
            if index not in steps and match is not None:
                del rest[match.id]
                same = match.labels == spec.labels
                steps[index] = Step("keep" if same else "move", _named(spec, match.name), match)
    by_name = {task.name: task for task in rest.values()}
    for index, spec in enumerate(wanted):
        edited = by_name.get(spec.name)
        if index not in steps and edited is not None and edited.id in rest:
            del rest[edited.id]
            steps[index] = Step("update", spec, edited)
    taken = {task.name for task in existing}
    for index, spec in enumerate(wanted):
        if index not in steps:
            name = _free(spec.name, taken)
            taken.add(name)
            steps[index] = Step("create", _named(spec, name))
    return [steps[index] for index in range(len(wanted))], list(rest.values())


def _essence(task: TaskSpec) -> Hashable:
    """Return what a task says, apart from its name and the line that it came from; equal for what means the same."""
    labels = {key: value for key, value in task.labels.items() if key != LABEL}
    fields = {name: getattr(task, name) for name in TaskSpec.__struct_fields__}
    return _frozen({**fields, "name": None, "labels": labels})


def _frozen(value: object) -> Hashable:
    if isinstance(value, msgspec.Struct):
        return tuple(_frozen(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, dict):
        return tuple(sorted((key, _frozen(item)) for key, item in value.items()))
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    assert isinstance(value, Hashable)
    return value


def _named(spec: TaskSpec, name: str) -> TaskSpec:
    return spec if spec.name == name else msgspec.structs.replace(spec, name=name)


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
