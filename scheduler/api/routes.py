"""The route table: the whole HTTP interface in one place."""

from __future__ import annotations

from typing import Any

from scheduler.api import dead_letters, edits, fleet, logs, payloads, probes, runs, submit, tasks, triggers
from scheduler.api.openapi import openapi
from scheduler.api.routing import Query, Route
from scheduler.domain.run import Run, RunState
from scheduler.domain.task import TaskSpec
from scheduler.wire.dead_letters import Replay, Selection
from scheduler.wire.fleet import Draining, QueueState
from scheduler.wire.health import DeepHealth, Liveness, Readiness
from scheduler.wire.runs import Cancelled, Explanation, FenceCheck, StoredCheckpoint
from scheduler.wire.tasks import Task, TaskStatus

_PAGED = (
    Query("limit", int, "How many items at most, 1 to 1000 (default 100)."),
    Query("cursor", str, "Where to go on: `next_cursor` of the page before."),
)
_QUEUE = Query("queue", str, "Only those of this queue.")
_EXAMPLE = {"name": "report", "command": ["/usr/bin/make", "report"], "retry": {"max_attempts": 3}, "timeout": "10m"}
_NIGHTLY = {"name": "nightly", "command": "backup.sh", "schedule": "30 2 * * *", "timezone": "Europe/Berlin"}
_BATCH = [
    {"name": "fetch", "command": "fetch.sh"},
    {"name": "parse", "command": "parse.sh", "depends_on": [{"task": "fetch"}]},
]

_TASKS: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/api/tasks",
        handler=submit.create_task,
        summary="Create a task",
        tag="tasks",
        request=TaskSpec,
        example=_EXAMPLE,
        responses={200: Task, 201: Task},
        errors=(408, 409, 413, 415, 422),
    ),
    Route(
        method="POST",
        path="/api/tasks/batch",
        handler=submit.create_batch,
        summary="Create many tasks, all or nothing",
        tag="tasks",
        request=list[TaskSpec],
        request_media=("application/json", "application/x-ndjson"),
        example=_BATCH,
        responses={201: payloads.BatchAnswer},
        errors=(408, 409, 413, 415, 422),
    ),
    Route(
        method="GET",
        path="/api/tasks",
        handler=tasks.list_tasks,
        summary="List tasks",
        tag="tasks",
        query=(
            Query("status", TaskStatus, "Only those in this state."),
            _QUEUE,
            Query("name", str, "Only those of exactly this name."),
            Query("tag", str, "Only those that bear this tag."),
            *_PAGED,
        ),
        responses={200: payloads.TaskPage},
        errors=(422,),
    ),
    Route(
        method="GET",
        path="/api/tasks/{id}",
        handler=tasks.get_task,
        summary="Read a task",
        tag="tasks",
        responses={200: Task},
        errors=(404,),
    ),
    Route(
        method="PUT",
        path="/api/tasks/{id}",
        handler=edits.replace_task,
        summary="Replace a task's definition",
        tag="tasks",
        request=TaskSpec,
        example=_NIGHTLY,
        responses={200: Task},
        errors=(404, 408, 409, 412, 413, 415, 422),
    ),
    Route(
        method="PATCH",
        path="/api/tasks/{id}",
        handler=edits.patch_task,
        summary="Change a task's definition (merge patch)",
        tag="tasks",
        request=dict[str, Any],
        request_media=("application/merge-patch+json", "application/json"),
        example={"priority": 9, "retry": {"max_attempts": 5}},
        responses={200: Task},
        errors=(404, 408, 409, 412, 413, 415, 422),
    ),
    Route(
        method="DELETE",
        path="/api/tasks/{id}",
        handler=tasks.delete_task,
        summary="Delete a task",
        tag="tasks",
        query=(Query("cascade", str, "`cancel`: cancel its live runs and skip what waits for it."),),
        responses={204: None},
        errors=(404, 409, 412, 422),
    ),
    Route(
        method="POST",
        path="/api/tasks/{id}/trigger",
        handler=triggers.trigger_task,
        summary="Run a task now",
        tag="tasks",
        responses={201: Run},
        errors=(404, 413, 422),
    ),
    Route(
        method="POST",
        path="/api/tasks/{id}/cancel",
        handler=tasks.cancel_task,
        summary="Cancel a task's live runs",
        tag="tasks",
        responses={200: Cancelled, 202: Cancelled},
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path="/api/tasks/{id}/pause",
        handler=tasks.pause_task,
        summary="Pause a task",
        tag="tasks",
        responses={200: Task},
        errors=(404, 412),
    ),
    Route(
        method="POST",
        path="/api/tasks/{id}/resume",
        handler=tasks.resume_task,
        summary="Resume a paused task",
        tag="tasks",
        responses={200: Task},
        errors=(404, 412),
    ),
    Route(
        method="GET",
        path="/api/tasks/{id}/plan",
        handler=tasks.plan_task,
        summary="When a task fires next",
        tag="tasks",
        query=(
            Query("n", int, "How many fires, 1 to 1000 (default 10)."),
            Query("from", str, "After which moment, RFC 3339 (default: now)."),
        ),
        responses={200: payloads.Plan},
        errors=(404, 422),
    ),
    Route(
        method="GET",
        path="/api/tasks/{id}/fires",
        handler=tasks.list_fires,
        summary="What became of planned fires",
        tag="tasks",
        query=_PAGED,
        responses={200: payloads.FirePage},
        errors=(404, 422),
    ),
    Route(
        method="GET",
        path="/api/tasks/{id}/runs",
        handler=runs.list_runs_of_task,
        summary="List a task's runs",
        tag="runs",
        query=(Query("state", RunState, "Only those in this state."), _QUEUE, *_PAGED),
        responses={200: payloads.RunPage},
        errors=(404, 422),
    ),
)

_RUNS: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/api/runs",
        handler=runs.list_runs,
        summary="List runs",
        tag="runs",
        query=(
            Query("state", RunState, "Only those in this state."),
            _QUEUE,
            Query("task_id", str, "Only those of this task."),
            *_PAGED,
        ),
        responses={200: payloads.RunPage},
        errors=(422,),
    ),
    Route(
        method="GET",
        path="/api/runs/{id}",
        handler=runs.get_run,
        summary="Read a run",
        tag="runs",
        responses={200: Run},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/api/runs/{id}/attempts",
        handler=runs.list_attempts,
        summary="List a run's attempts",
        tag="runs",
        responses={200: payloads.Attempts},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/api/runs/{id}/logs",
        handler=logs.read_logs,
        summary="Read or follow a run's output",
        tag="runs",
        query=(
            Query("follow", bool, "Server-sent events until the run has ended (also by Accept: text/event-stream)."),
            Query("attempt", int, "Of which attempt (default: the newest)."),
            Query("offset", int, "From which byte of the attempt's output on."),
            Query("stream", str, "Only `stdout` or only `stderr`."),
        ),
        responses={200: ("text/plain", "text/event-stream")},
        errors=(404, 422),
    ),
    Route(
        method="GET",
        path="/api/runs/{id}/outputs",
        handler=runs.get_outputs,
        summary="Read a run's outputs",
        tag="runs",
        responses={200: Any},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/api/runs/{id}/explain",
        handler=runs.explain_run,
        summary="Why a run is not running",
        tag="runs",
        responses={200: Explanation},
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/api/runs/{id}/cancel",
        handler=runs.cancel_run,
        summary="Cancel a run",
        tag="runs",
        responses={200: Cancelled, 202: Cancelled},
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path="/api/runs/{id}/retry",
        handler=runs.retry_run,
        summary="Run an ended run again",
        tag="runs",
        responses={200: Run},
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path="/api/runs/{id}/checkpoint",
        handler=runs.get_checkpoint,
        summary="Read a run's checkpoint",
        tag="runs",
        responses={200: ("application/octet-stream",)},
        errors=(404,),
    ),
    Route(
        method="PUT",
        path="/api/runs/{id}/checkpoint",
        handler=runs.put_checkpoint,
        summary="Store a run's checkpoint",
        tag="runs",
        request=bytes,
        request_media=("application/octet-stream",),
        query=(Query("fence", int, "The fence of the executing attempt."),),
        responses={200: StoredCheckpoint},
        errors=(404, 408, 409, 413, 422),
    ),
    Route(
        method="GET",
        path="/api/runs/{id}/fence/{fence}",
        handler=runs.check_fence,
        summary="Whether a fence still holds",
        tag="runs",
        responses={200: FenceCheck},
        errors=(404,),
    ),
)

_DEAD_LETTERS: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/api/dead-letter",
        handler=dead_letters.list_dead_letters,
        summary="List open dead letters",
        tag="dead letters",
        query=(
            _QUEUE,
            Query("task_id", str, "Only those of this task."),
            Query("reason", str, "Only those with this reason, whole or up to its colon."),
            *_PAGED,
        ),
        responses={200: payloads.DeadLetterPage},
        errors=(422,),
    ),
    Route(
        method="POST",
        path="/api/dead-letter/replay",
        handler=dead_letters.replay_dead_letters,
        summary="Run dead letters again",
        tag="dead letters",
        request=Replay,
        example={"reason": "timeout", "edits": {"timeout": "2h"}},
        responses={200: payloads.ReplayAnswer},
        errors=(408, 409, 413, 415, 422),
    ),
    Route(
        method="POST",
        path="/api/dead-letter/discard",
        handler=dead_letters.discard_dead_letters,
        summary="Close dead letters",
        tag="dead letters",
        request=Selection,
        example={"queue": "default", "limit": 100},
        responses={200: payloads.ReplayAnswer},
        errors=(408, 413, 415, 422),
    ),
)

_FLEET: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/api/workers",
        handler=fleet.list_workers,
        summary="List workers",
        tag="fleet",
        responses={200: payloads.Workers},
    ),
    Route(
        method="POST",
        path="/api/workers/{id}/drain",
        handler=fleet.drain_worker,
        summary="Drain a worker",
        tag="fleet",
        responses={202: Draining},
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path="/api/queues",
        handler=fleet.list_queues,
        summary="List queues",
        tag="fleet",
        responses={200: payloads.Queues},
    ),
    Route(
        method="POST",
        path="/api/queues/{name}/pause",
        handler=fleet.pause_queue,
        summary="Pause a queue",
        tag="fleet",
        responses={200: QueueState},
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/api/queues/{name}/resume",
        handler=fleet.resume_queue,
        summary="Resume a queue",
        tag="fleet",
        responses={200: QueueState},
        errors=(404,),
    ),
)


def _probe(path: str, handler: Any, summary: str, responses: dict[int, Any]) -> Route:
    return Route(method="GET", path=path, handler=handler, summary=summary, tag="health", responses=responses)


_READINESS = {200: Readiness, 503: Readiness}
_DEEP = {200: DeepHealth, 503: DeepHealth}

_PROBES: tuple[Route, ...] = (
    _probe("/health/live", probes.live, "Whether this process answers", {200: Liveness}),
    _probe("/livez", probes.live, "The same as /health/live", {200: Liveness}),
    _probe("/health/ready", probes.ready, "Whether work is accepted", _READINESS),
    _probe("/readyz", probes.ready, "The same as /health/ready", _READINESS),
    _probe("/health/deep", probes.deep, "How everything is", _DEEP),
    _probe("/healthz", probes.deep, "The same as /health/deep", _DEEP),
    _probe("/metrics", probes.metrics, "Metrics for Prometheus", {200: ("text/plain",)}),
    _probe("/openapi.json", openapi, "This document", {200: dict[str, Any]}),
)

ROUTES: tuple[Route, ...] = (*_TASKS, *_RUNS, *_DEAD_LETTERS, *_FLEET, *_PROBES)
