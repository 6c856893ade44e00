"""Operations on workers, queues, dead letters and the server itself, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from scheduler.client.exchange import Id, Operation, ask, build, decoded, path_of
from scheduler.client.pages import Listing, Page
from scheduler.wire.dead_letters import DeadLetter, Decided, Selection
from scheduler.wire.fleet import Queue, QueueState, Worker
from scheduler.wire.health import DeepHealth, Readiness


def workers() -> Listing[Worker]:
    """List the workers that are there, and those that went lately."""
    return Listing("/api/workers", Worker, {})


def drain_worker(worker_id: Id) -> Operation[None]:
    """Ask a worker to take nothing more, finish what it runs, and leave."""
    yield from ask(build("POST", path_of("api", "workers", worker_id, "drain"), repeatable=True))


def queues() -> Listing[Queue]:
    """List every queue that work was ever put in."""
    return Listing("/api/queues", Queue, {})


def pause_queue(name: str) -> Operation[QueueState]:
    """Start nothing more from a queue; what executes goes on."""
    request = build("POST", path_of("api", "queues", name, "pause"), repeatable=True)
    return decoded((yield from ask(request)), QueueState)


def resume_queue(name: str) -> Operation[QueueState]:
    """Let a paused queue's runs start again."""
    request = build("POST", path_of("api", "queues", name, "resume"), repeatable=True)
    return decoded((yield from ask(request)), QueueState)


def dead_letters(
    *, queue: str | None = None, task: Id | None = None, reason: str | None = None, page: int | None = None
) -> Listing[DeadLetter]:
    """List open dead letters, newest first; `reason` is whole (`exit:3`) or its kind (`exit`)."""
    task_id = None if task is None else str(task)
    return Listing(
        "/api/dead-letter", DeadLetter, {"queue": queue, "task_id": task_id, "reason": reason, "limit": page}
    )


def replay_dead_letters(
    selection: Selection, *, edits: Mapping[str, Any] | None = None, canary: int | None = None
) -> Operation[list[Decided]]:
    """Revive dead runs with fresh budgets, after changing their tasks by the merge patch `edits`.

    With `canary`, so many of them run first (10 at most), and the others only once these have completed.
    """
    body = {
        **msgspec.to_builtins(selection),
        **({"edits": edits} if edits else {}),
        **({"canary": canary} if canary is not None else {}),
    }
    request = build("POST", "/api/dead-letter/replay", body=msgspec.json.encode(body))
    return decoded((yield from ask(request)), Page[Decided]).items


def discard_dead_letters(selection: Selection) -> Operation[list[Decided]]:
    """Close dead letters without reviving their runs."""
    request = build("POST", "/api/dead-letter/discard", body=msgspec.json.encode(selection))
    return decoded((yield from ask(request)), Page[Decided]).items


def health() -> Operation[DeepHealth]:
    """Ask for everything that the answering server knows of the system's health. Overloaded if its database is away."""
    return decoded((yield from ask(build("GET", "/health/deep"))), DeepHealth)


def ready() -> Operation[Readiness]:
    """Ask whether the server takes work."""
    return decoded((yield from ask(build("GET", "/health/ready"))), Readiness)
