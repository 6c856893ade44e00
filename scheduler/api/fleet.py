"""Queues and workers: what there is, and pausing a queue."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from scheduler.api.context import Context
from scheduler.api.cursors import whole_answer
from scheduler.api.payloads import Queues, Workers
from scheduler.api.requests import Request
from scheduler.api.responses import Reply, answer
from scheduler.api.routing import WHOLE, Query, Route
from scheduler.broker import BrokerUnavailable
from scheduler.domain.errors import Conflict, FieldError, InvalidInput, NotFound
from scheduler.domain.task import Moment
from scheduler.wire.fleet import Draining, QueueState

_LONGEST_NAME = 255
_WORKER_STATES = ("live", "draining", "dead", "left")


async def list_queues(api: Context, request: Request) -> Reply:
    """List every queue that work was ever put in, by name."""
    request.allow_query("paused", "limit", "cursor")
    paused = request.convert("paused", bool)
    queues = await api.queues.queues(request.namespace)
    return whole_answer(request, (q for q in queues if paused in (None, q.paused)), lambda queue: queue.name, str)


async def pause_queue(api: Context, request: Request) -> Reply:
    """Stop starting runs of a queue; executing ones go on, new ones are accepted and wait."""
    name = _name(request)
    lanes = await api.queues.set_paused(request.namespace, name, request.actor, paused=True)

    async def close() -> None:
        api.offers.close(lanes)
        try:
            for lane in lanes:
                await api.broker.mark_closed(lane)
        except BrokerUnavailable:
            pass  # the claim asks PostgreSQL again: this only saves it the trouble

    await api.database.once_committed(close)
    api.offers.wake_control()
    return answer(QueueState(name=name, paused=True))


async def resume_queue(api: Context, request: Request) -> Reply:
    """Start runs of a queue again."""
    name = _name(request)
    await api.queues.set_paused(request.namespace, name, request.actor, paused=False)
    api.offers.wake_control()
    return answer(QueueState(name=name, paused=False))


async def list_workers(api: Context, request: Request) -> Reply:
    """List the workers that are there, and those that went in the last hour, the oldest first."""
    request.allow_query("state", "queue", "limit", "cursor")
    state, queue = request.query.get("state"), request.query.get("queue")
    if state is not None and state not in _WORKER_STATES:
        raise InvalidInput([FieldError("?state", f"must be one of {', '.join(_WORKER_STATES)}")])
    workers = [
        worker
        for worker in await api.queues.workers(request.principal.namespaces)
        if state in (None, worker.state) and (queue is None or queue in worker.queues)
    ]
    return whole_answer(request, workers, lambda worker: (worker.registered_at, worker.id), tuple[Moment, UUID])


async def drain_worker(api: Context, request: Request) -> Reply:
    """Let a worker take nothing more, finish what it runs, and leave."""
    worker_id = request.uuid("worker")
    state = await api.queues.request_drain(worker_id)
    if state is None:
        raise NotFound("worker", worker_id)
    if state in {"dead", "left"}:
        raise Conflict("worker_gone", f"the worker is {state}")
    api.offers.nudge(worker_id)
    return answer(Draining(id=worker_id, drain_requested=True), 202)


def _name(request: Request) -> str:
    name = request.params["name"]
    if len(name) > _LONGEST_NAME:
        raise NotFound("queue", name[:50])
    return name


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/api/workers",
        permission="fleet:read",
        handler=list_workers,
        summary="List workers",
        tag="fleet",
        query=(
            Query("state", Literal["live", "draining", "dead", "left"], "Only those in this state."),
            Query("queue", str, "Only those that serve this queue."),
            *WHOLE,
        ),
        responses={200: Workers},
        errors=(422,),
    ),
    Route(
        method="POST",
        path="/api/workers/{id}/drain",
        permission="worker:control",
        handler=drain_worker,
        summary="Drain a worker",
        tag="fleet",
        responses={202: Draining},
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path="/api/queues",
        permission="fleet:read",
        handler=list_queues,
        summary="List queues",
        tag="fleet",
        query=(Query("paused", bool, "Only those that are paused, or are not."), *WHOLE),
        responses={200: Queues},
        errors=(422,),
    ),
    Route(
        method="POST",
        path="/api/queues/{name}/pause",
        permission="queue:control",
        handler=pause_queue,
        summary="Pause a queue",
        tag="fleet",
        responses={200: QueueState},
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/api/queues/{name}/resume",
        permission="queue:control",
        handler=resume_queue,
        summary="Resume a queue",
        tag="fleet",
        responses={200: QueueState},
        errors=(404,),
    ),
)
