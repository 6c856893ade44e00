"""Operations on tasks, without I/O; both clients take their methods from here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from scheduler.client.errors import ApiError, PartlySubmitted, Unreachable
from scheduler.client.exchange import Id, Operation, ask, build, decoded, path_of
from scheduler.client.pages import Listing, Page
from scheduler.domain.backfill import BackfillOverlap
from scheduler.domain.run import Run
from scheduler.domain.task import TaskSpec, encode_spec
from scheduler.wire.backfills import Backfilled, BackfillRange
from scheduler.wire.runs import Cancelled
from scheduler.wire.tasks import Created, Fire, PlannedFire, Task

BATCH_TASKS = 10_000
BATCH_BYTES = 8 * 1024 * 1024
"""The most that one batch carries; the server takes 10,000 tasks and 10 MiB."""


def submit(spec: TaskSpec) -> Operation[Task]:
    """Create one task.

    With an `idempotency_key` in the spec there is one such task until it is deleted, however often it is submitted;
    without one, this call makes one task, also where it has to be sent again.
    """
    keyed = spec.idempotency_key is not None
    request = build("POST", "/api/tasks", body=encode_spec(spec), repeatable=keyed)
    return decoded((yield from ask(request)), Task)


def submit_batch(specs: Sequence[TaskSpec]) -> Operation[list[Created]]:
    """Create up to 10,000 tasks in one transaction, all or nothing; they may depend on each other by name."""
    return (yield from _send_batch([encode_spec(spec) for spec in specs]))


def submit_many(
    specs: Iterable[TaskSpec], *, batch: int = BATCH_TASKS, progress: Callable[[int], None] | None = None
) -> Operation[list[Created]]:
    """Create any number of tasks, in as few transactions as the server's limits allow; `specs` is read as it goes.

    Each batch is all or nothing. When the first one fails, nothing was created and its error is raised; when a later
    one does, PartlySubmitted says what stands. Tasks that depend on each other by name belong in one batch
    (`submit_batch`). `progress` is told how many tasks were created so far.
    """
    created: list[Created] = []
    for lines in batches(specs, batch):
        try:
            created += yield from _send_batch(lines)
        except (ApiError, Unreachable) as error:
            if not created:
                raise
            raise PartlySubmitted(created, len(lines), error) from error
        if progress is not None:
            progress(len(created))
    return created


def batches(specs: Iterable[TaskSpec], most: int = BATCH_TASKS) -> Iterator[list[bytes]]:
    """Cut encoded tasks into batches that one request may carry."""
    lines: list[bytes] = []
    size = 0
    for spec in specs:
        line = encode_spec(spec)
        if lines and (len(lines) == most or size + len(line) > BATCH_BYTES):
            yield lines
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield lines


def _send_batch(lines: Sequence[bytes]) -> Operation[list[Created]]:
    request = build("POST", "/api/tasks/batch", body=b"[" + b",".join(lines) + b"]")
    return decoded((yield from ask(request)), Page[Created]).items


def task(task_id: Id) -> Operation[Task]:
    """Read one task."""
    return decoded((yield from ask(build("GET", path_of("api", "tasks", task_id)))), Task)


def tasks(
    *,
    status: str | None = None,
    queue: str | None = None,
    tag: str | None = None,
    name: str | None = None,
    page: int | None = None,
) -> Listing[Task]:
    """List tasks, newest first, `page` at a time; `status` is a run state, or `scheduled` or `paused`."""
    return Listing("/api/tasks", Task, {"status": status, "queue": queue, "tag": tag, "name": name, "limit": page})


def replace_task(task_id: Id, spec: TaskSpec, *, version: int) -> Operation[Task]:
    """Put a whole new definition in place of `version`. Raises PreconditionFailed if that is not the stored one.

    Where an answer was lost, and the next try finds another version, that may be this very change: the error that left
    it in doubt is raised instead.
    """
    request = build("PUT", path_of("api", "tasks", task_id), body=encode_spec(spec), version=version)
    return decoded((yield from ask(request)), Task)


def edit_task(task_id: Id, changes: Mapping[str, Any], *, version: int | None = None) -> Operation[Task]:
    """Change some fields by merge patch (None removes one). Raises PreconditionFailed if `version` has passed."""
    request = build(
        "PATCH",
        path_of("api", "tasks", task_id),
        body=msgspec.json.encode(changes),
        media="application/merge-patch+json",
        version=version,
    )
    return decoded((yield from ask(request)), Task)


def delete_task(task_id: Id, *, cascade: bool = False) -> Operation[None]:
    """Delete a task; `cascade` cancels its live runs and skips what depends on it, else these are a Conflict."""
    request = build("DELETE", path_of("api", "tasks", task_id), query={"cascade": "cancel" if cascade else None})
    yield from ask(request)


def trigger(task_id: Id) -> Operation[Run]:
    """Make a run now. One that the task's overlap rule refuses comes back `skipped`."""
    return decoded((yield from ask(build("POST", path_of("api", "tasks", task_id, "trigger")))), Run)


def cancel_task(task_id: Id) -> Operation[Cancelled]:
    """Cancel every live run of a task. Raises Conflict if there is none."""
    return decoded((yield from ask(build("POST", path_of("api", "tasks", task_id, "cancel")))), Cancelled)


def pause_task(task_id: Id) -> Operation[Task]:
    """Stop a task's fires and hold its waiting runs; what executes goes on."""
    return decoded((yield from ask(build("POST", path_of("api", "tasks", task_id, "pause"), repeatable=True))), Task)


def resume_task(task_id: Id) -> Operation[Task]:
    """Let a paused task fire again; what fell due meanwhile is judged by its catchup rule."""
    return decoded((yield from ask(build("POST", path_of("api", "tasks", task_id, "resume"), repeatable=True))), Task)


def plan(task_id: Id, *, n: int = 10, start: datetime | None = None) -> Operation[list[PlannedFire]]:
    """Read the next `n` fires after `start` (now)."""
    query = {"n": n, "from": start.isoformat() if start else None}
    return decoded(
        (yield from ask(build("GET", path_of("api", "tasks", task_id, "plan"), query=query))), Page[PlannedFire]
    ).items


def fires(task_id: Id, *, page: int | None = None) -> Listing[Fire]:
    """List what became of a task's planned fires, latest first."""
    return Listing(path_of("api", "tasks", task_id, "fires"), Fire, {"limit": page})


def backfill(
    task_id: Id,
    start: datetime,
    end: datetime,
    *,
    cap: int = 100,
    overlap: BackfillOverlap | None = None,
    dry_run: bool = False,
) -> Operation[Backfilled]:
    """Make runs for planned fires that have passed, from `start` to `end`; those that have a run keep it.

    They go one by one unless the task, or `overlap`, says otherwise. Repeating it makes no run twice.
    """
    wanted = BackfillRange(start=start, end=end, cap=cap, overlap=overlap, dry_run=dry_run)
    request = build(
        "POST", path_of("api", "tasks", task_id, "backfill"), body=msgspec.json.encode(wanted), repeatable=True
    )
    return decoded((yield from ask(request)), Backfilled)
