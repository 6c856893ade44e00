"""What a running command asks of its own run: its checkpoint, its outputs, its fence."""

from __future__ import annotations

from typing import Any

import msgspec

from scheduler.api.context import Context, found
from scheduler.api.requests import Request
from scheduler.api.responses import Reply, answer
from scheduler.api.routing import Query, Route
from scheduler.api.runs import named_run
from scheduler.domain.errors import Conflict, FieldError, Forbidden, InvalidInput, NotFound
from scheduler.wire.runs import FenceCheck, StoredCheckpoint

_MAX_FENCE = (1 << 63) - 1


async def check_fence(api: Context, request: Request) -> Reply:
    """Say whether a fence still holds: a command asks before a side effect."""
    run_id = request.uuid("run")
    text = request.params["fence"]
    if not (text.isascii() and text.isdigit()):
        raise NotFound("fence", text[:100])
    exists, current = await api.runs.fence(request.namespace, run_id)
    if not exists:
        raise NotFound("run", run_id)
    return answer(FenceCheck(valid=current is not None and int(text[:20]) == current, current=current))


async def get_checkpoint(api: Context, request: Request) -> Reply:
    """Return a run's checkpoint as it was stored."""
    await demand_current(api, request)
    run = await named_run(api, request)
    checkpoint = found(await api.runs.checkpoint(run.id), "checkpoint of run", run.id)
    headers = [(b"x-dts-fence", b"%d" % checkpoint.fence)]
    return Reply(checkpoint.data, 200, b"application/octet-stream", headers)


async def put_checkpoint(api: Context, request: Request) -> Reply:
    """Store a run's checkpoint; while an attempt executes, only with its fence (`?fence=`)."""
    request.allow_query("fence")
    fence = request.convert("fence", int)
    if fence is not None and not 0 <= fence <= _MAX_FENCE:
        raise InvalidInput([FieldError("?fence", "is no fence")])
    if (own := request.principal.run) is not None:
        if fence not in (None, own.fence):
            raise Forbidden("a run's token is for the attempt it was given to", None)
        fence = own.fence
    data = await request.body(api.settings.max_checkpoint, api.settings.body_timeout)
    run = await named_run(api, request)
    stored_at = await api.runs.put_checkpoint(run.id, data, fence)
    if stored_at is None:
        detail = "an attempt executes: its fence is needed" if fence is None else "the fence does not hold any more"
        raise Conflict("stale_fence", detail)
    return answer(StoredCheckpoint(stored_at=stored_at, size=len(data)))


async def get_outputs(api: Context, request: Request) -> Reply:
    """Return what a run wrote to its output file, as one JSON value; null if nothing."""
    await demand_current(api, request)
    run = await named_run(api, request)
    return answer(run.outputs if run.outputs is not None else msgspec.Raw(b"null"))


async def demand_current(api: Context, request: Request) -> None:
    """Raise Forbidden for a running command's token whose attempt is not the run's current one any more."""
    own = request.principal.run
    if own is not None and await api.runs.fence(request.namespace, own.run_id) != (True, own.fence):
        raise Forbidden("the attempt that this token was given to has ended", None)


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/api/runs/{id}/outputs",
        permission="run:read",
        run_token=True,
        handler=get_outputs,
        summary="Read a run's outputs",
        tag="runs",
        responses={200: Any},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/api/runs/{id}/checkpoint",
        permission="run:read",
        run_token=True,
        handler=get_checkpoint,
        summary="Read a run's checkpoint",
        tag="runs",
        responses={200: ("application/octet-stream",)},
        errors=(404,),
    ),
    Route(
        method="PUT",
        path="/api/runs/{id}/checkpoint",
        permission="checkpoint:write",
        run_token=True,
        handler=put_checkpoint,
        summary="Store a run's checkpoint",
        tag="runs",
        request=bytes,
        request_media=("application/octet-stream",),
        query=(Query("fence", int, "The fence of the executing attempt."),),
        responses={200: StoredCheckpoint},
        errors=(404, 408, 409, 413, 415, 422),
    ),
    Route(
        method="GET",
        path="/api/runs/{id}/fence/{fence}",
        permission="run:read",
        run_token=True,
        handler=check_fence,
        summary="Whether a fence still holds",
        tag="runs",
        responses={200: FenceCheck},
        errors=(404,),
    ),
)
