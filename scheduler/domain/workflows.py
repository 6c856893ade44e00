"""Workflows: a named DAG of tasks with one schedule and parameters.

A workflow's runs are runs of its *carrier*, a recurring task of the same name that no worker takes: its schedule,
overlap rule and calendars are the workflow's. When a run of the carrier is due, the leader unfolds it: each task of the
definition becomes a one-off task with its run, and the carrier's run waits for the end of all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, structs

from scheduler.domain import text
from scheduler.domain.complaints import Complaints, quoted
from scheduler.domain.dependencies import resolve_batch
from scheduler.domain.errors import FieldError, InvalidInput
from scheduler.domain.run import TERMINAL, RunState
from scheduler.domain.task import Body, Catchup, Condition, Duration, Moment, Name, TaskSpec
from scheduler.domain.validation import normalise
from scheduler.domain.validation_execution import LONGEST_COMMAND, check_not_reserved, environment_size, size_of

EXECUTOR = "workflow"
"""The executor of carriers. No worker offers it, so no lane of it is ever read, and the promoter leaves them alone."""

MOST_TASKS = 1000

LARGEST_PARAMETERS = 64 * 1024
"""Bytes of all parameters with their names: the leader writes them as often as the workflow has tasks."""

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_THE_WORKFLOW = ("schedule", "run_at", "delay", "starts_at", "ends_at", "idempotency_key")
_TIMING = (
    "schedule",
    "timezone",
    "starts_at",
    "ends_at",
    "jitter",
    "catchup",
    "catchup_window",
    "overlap",
    "dst_gap",
    "calendars",
)

Parameters = Annotated[dict[str, str], Meta(max_length=100)]


class WorkflowSpec(Body, frozen=True, kw_only=True):
    """A workflow's definition. `parameters` are environment variables of every task, with their defaults.

    They have 64 KiB at most, all together and with their names. The tasks depend on each other by name, and on nothing
    else; when they run is the workflow's to say.
    """

    name: Name
    tasks: Annotated[list[TaskSpec], Meta(min_length=1, max_length=MOST_TASKS)]
    parameters: Parameters = msgspec.field(default_factory=dict)
    schedule: str | None = None
    timezone: str = "UTC"
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    jitter: Duration = 0.0
    catchup: Catchup = "last"
    catchup_window: Duration = 3600.0
    overlap: Literal["skip", "buffer_one", "buffer_all", "allow_all"] = "skip"
    dst_gap: Literal["skip", "shift"] = "skip"
    calendars: list[Name] = msgspec.field(default_factory=list)


class Edge(msgspec.Struct, frozen=True):
    """A task waits for the one at `upstream`."""

    upstream: int
    condition: Condition


encode_workflow = msgspec.json.Encoder().encode
decode_workflow = msgspec.json.Decoder(WorkflowSpec).decode


def carrier_of(spec: WorkflowSpec) -> TaskSpec:
    """Return the definition of the carrier."""
    timing = {field: getattr(spec, field) for field in _TIMING}
    return TaskSpec(name=spec.name, command=["workflow"], executor=EXECUTOR, timeout=None, **timing)


def normalised(spec: WorkflowSpec, now: datetime) -> WorkflowSpec:
    """Return a workflow's normal form. Raises InvalidInput with every complaint."""
    found = Complaints("")
    found.text("name", spec.name, text.label)
    if "/" in spec.name:
        found.add("name", "holds a slash: workflows are addressed by name")
    _check_parameters(spec.parameters, found)
    _check_size(spec.tasks, spec.parameters, found)
    tasks: list[TaskSpec] = []
    errors: list[FieldError] = []
    for n, task in enumerate(spec.tasks):
        for field in _OF_THE_WORKFLOW:
            if getattr(task, field) is not None:
                found.add(f"tasks/{n}/{field}", "is the workflow's to say: leave it out")
        try:
            tasks.append(normalise(structs.replace(task, **dict.fromkeys(_OF_THE_WORKFLOW)), now, f"/tasks/{n}"))
        except InvalidInput as error:
            errors += error.errors
    try:
        timing = normalise(structs.replace(carrier_of(spec), executor="process"), now)
    except InvalidInput as error:
        errors += error.errors
    try:
        found.raise_any()
    except InvalidInput as error:
        errors += error.errors
    errors += _duplicates(spec.tasks)
    if errors:
        raise InvalidInput(errors[:100])
    edges_of(spec)
    return structs.replace(spec, tasks=tasks, **{field: getattr(timing, field) for field in _TIMING})


def check_start(spec: WorkflowSpec, given: Mapping[str, str]) -> None:
    """Raise InvalidInput if a run cannot begin with these values of parameters in place of their defaults."""
    found = Complaints("")
    _check_parameters(given, found)
    _check_size(spec.tasks, {**spec.parameters, **given}, found)
    found.raise_any()


def check_unfolding(spec: WorkflowSpec, parameters: Mapping[str, str]) -> None:
    """Raise InvalidInput if a run has more than any that is begun can have: one of an older release may."""
    size = len(spec.tasks) * environment_size(parameters)
    if size > MOST_TASKS * LARGEST_PARAMETERS:
        raise InvalidInput([FieldError("/parameters", f"have {size} bytes in all tasks together: they are too large")])


def _check_parameters(parameters: Mapping[str, str], found: Complaints) -> None:
    """Complain about parameters that cannot be environment variables."""
    for name, value in parameters.items():
        if not _ENV_NAME.fullmatch(name):
            found.add("parameters", f"{quoted(name)} is no name for a variable: write letters, digits, '_'")
        check_not_reserved(name, "parameters", found)
        found.text("parameters", value, text.storable)


def _check_size(tasks: Sequence[TaskSpec], parameters: Mapping[str, str], found: Complaints) -> None:
    """Complain about parameters that are too large, or are so for one of the tasks beside its own environment."""
    size = environment_size(parameters)
    if size > LARGEST_PARAMETERS:
        found.add("parameters", f"have {size} bytes with their names: {LARGEST_PARAMETERS} at most")
    elif size:
        for task in tasks:
            of_task = size_of(node_spec(task, parameters))
            if size_of(task) <= LONGEST_COMMAND < of_task:
                what = f"the command and environment of {quoted(task.name)}"
                found.add("parameters", f"{what} have {of_task} bytes with them: {LONGEST_COMMAND} at most")


def edges_of(spec: WorkflowSpec) -> list[list[Edge]]:
    """Return what each task waits for. Raises InvalidInput for a cycle, or for a task that is none of the workflow."""
    edges: list[list[Edge]] = []
    errors: list[FieldError] = []
    for n, own in enumerate(resolve_batch(spec.tasks, pointer="/tasks/{index}")):
        edges.append([Edge(edge.index, edge.dependency.on) for edge in own if edge.index is not None])
        errors += (
            FieldError(
                f"/tasks/{n}/depends_on/{edge.position}/task",
                f"no task of the workflow is named {edge.dependency.task!r}",
            )
            for edge in own
            if edge.index is None
        )
    if errors:
        raise InvalidInput(errors[:100])
    return edges


def node_spec(task: TaskSpec, parameters: Mapping[str, str]) -> TaskSpec:
    """Return the definition of one node's task: what its own `env` says goes before the parameters."""
    return structs.replace(task, env={**parameters, **task.env}) if parameters else task


def outcome(
    names: Sequence[str], states: Sequence[RunState], edges: Sequence[Sequence[Edge]]
) -> tuple[RunState, str | None]:
    """Return what a workflow run has come to, and why, when all its tasks have ended.

    It failed if a task failed, or was cancelled, and no other task was there to run for that; or if a task was skipped
    though all that it waited for has come: another run of an upstream, after a retry, came to another end.
    """
    handled = {edge.upstream for own in edges for edge in own if edge.condition in ("failure", "completion")}
    for n, (name, state) in enumerate(zip(names, states, strict=True)):
        unhandled = state == "cancelled" or (state in ("failed", "dead_letter") and n not in handled)
        missed = state == "skipped" and all(holds(edge.condition, states[edge.upstream]) for edge in edges[n])
        if unhandled or missed:
            return "failed", f"task_{state}:{name}"
    return "completed", None


def to_rerun(states: Sequence[RunState], edges: Sequence[Sequence[Edge]]) -> set[int]:
    """Return the tasks that run again: all but those that completed, and those that these still keep from running."""
    again: set[int] = set()
    left = {n for n, state in enumerate(states) if state != "completed"}
    while left:
        ready = {n for n in left if not any(edge.upstream in left for edge in edges[n])}
        for n in ready:
            if all(edge.upstream in again or holds(edge.condition, states[edge.upstream]) for edge in edges[n]):
                again.add(n)
        left -= ready
    return again


def holds(condition: Condition, state: RunState) -> bool:
    """Say whether a condition on a run that has ended holds."""
    if condition == "completion":
        return state in TERMINAL
    return state == "completed" if condition == "success" else state in ("failed", "dead_letter")


def _duplicates(tasks: Sequence[TaskSpec]) -> list[FieldError]:
    seen: set[str] = set()
    errors = []
    for n, task in enumerate(tasks):
        if task.name in seen:
            errors.append(FieldError(f"/tasks/{n}/name", f"{task.name[:60]!r} stands here twice"))
        seen.add(task.name)
    return errors
