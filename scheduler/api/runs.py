"""Reading runs, and what can be done to one: cancel, retry, explain, its fence and its checkpoint."""

from __future__ import annotations

from uuid import UUID

import msgspec

from scheduler.api.context import Context, found
from scheduler.api.cursors import cursor_of, limit_of, page_answer, whole_answer
from scheduler.api.requests import Request
from scheduler.api.responses import Reply, answer, etag
from scheduler.domain.blockers import blockers
from scheduler.domain.errors import Conflict, FieldError, Forbidden, InvalidInput, NotFound, PreconditionFailed
from scheduler.domain.run import LIVE, TERMINAL, Run
from scheduler.store.database import Executor
from scheduler.store.runs import RunFilter
from scheduler.wire.runs import Cancelled, Explanation, FenceCheck, StoredCheckpoint

_MAX_FENCE = (1 << 63) - 1


async def list_runs(api: Context, request: Request) -> Reply:
    """List runs, newest first."""
    request.allow_query("state", "queue", "task_id", "limit", "cursor")
    return await _list(api, request, request.query_uuid("task_id"))


async def list_runs_of_task(api: Context, request: Request) -> Reply:
    """List the runs of one task, newest first."""
    request.allow_query("state", "queue", "limit", "cursor")
    task_id = request.uuid("task")
    found(await api.tasks.get(request.namespace, task_id), "task", task_id)
    return await _list(api, request, task_id)


async def get_run(api: Context, request: Request) -> Reply:
    """Return one run."""
    run = await _get(api, request)
    return answer(run, 200, (etag(run.version),))


async def list_attempts(api: Context, request: Request) -> Reply:
    """Return the attempts of a run, in order."""
    request.allow_query("limit", "cursor")
    run = await _get(api, request)
    return whole_answer(request, await api.runs.attempts(run.id), lambda attempt: attempt.attempt, int)


async def explain_run(api: Context, request: Request) -> Reply:
    """Say why a run is not running: every blocker that stands now."""
    run_id = request.uuid("run")
    facts = found(await api.explain.facts(request.namespace, run_id), "run", run_id)
    return answer(Explanation(run_id=run_id, state=facts.state, blockers=blockers(facts)))


async def cancel_run(api: Context, request: Request) -> Reply:
    """Cancel a run: 200 if it ended at once, 202 if its worker has to end it, 409 if it had ended already."""
    run_id = request.uuid("run")
    async with api.database.transaction() as executor:
        await _demand_version(api, executor, request, run_id)
        cancelled = await api.runs.cancel(executor, request.namespace, [run_id])
    if not cancelled.done and not cancelled.requested:
        run = await _get(api, request)
        raise Conflict("already_terminal", f"the run is {run.state}")
    api.offers.cancel(cancelled.requested)
    api.offers.settled(cancelled.settled)
    body = Cancelled(cancelled=cancelled.done, requested=[run_id for run_id, _ in cancelled.requested])
    return answer(body, 202 if cancelled.requested else 200)


async def retry_run(api: Context, request: Request) -> Reply:
    """Let an ended run run again, now, with fresh budgets and the task's present definition."""
    run_id = request.uuid("run")
    revivable = found((await api.runs.revivable(request.namespace, [run_id])).get(run_id), "run", run_id)
    if revivable.deleted:
        raise Conflict("task_deleted", "its task has been deleted")
    api.admission.admit(request.namespace, 1)
    async with api.database.transaction() as executor:
        await _demand_version(api, executor, request, run_id)
        revived = await api.runs.revive(executor, request.namespace, [(run_id, revivable.spec)], request.actor)
    if not revived:
        run = await _get(api, request)
        why = "has not ended" if run.state in LIVE else f"is {run.state}, which is final"
        raise Conflict("not_retriable", f"the run {why}")
    api.offers.wake_control()
    return await get_run(api, request)


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
    run = await _get(api, request)
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
    run = await _get(api, request)
    stored_at = await api.runs.put_checkpoint(run.id, data, fence)
    if stored_at is None:
        detail = "an attempt executes: its fence is needed" if fence is None else "the fence does not hold any more"
        raise Conflict("stale_fence", detail)
    return answer(StoredCheckpoint(stored_at=stored_at, size=len(data)))


async def get_outputs(api: Context, request: Request) -> Reply:
    """Return what a run wrote to its output file, as one JSON value; null if nothing."""
    await demand_current(api, request)
    run = await _get(api, request)
    return answer(run.outputs if run.outputs is not None else msgspec.Raw(b"null"))


async def demand_current(api: Context, request: Request) -> None:
    """Raise Forbidden for a running command's token whose attempt is not the run's current one any more."""
    own = request.principal.run
    if own is not None and await api.runs.fence(request.namespace, own.run_id) != (True, own.fence):
        raise Forbidden("the attempt that this token was given to has ended", None)


async def _list(api: Context, request: Request, task_id: UUID | None) -> Reply:
    state = request.query.get("state")
    if state is not None and state not in LIVE | TERMINAL:
        raise InvalidInput([FieldError("?state", f"must be one of {', '.join(sorted(LIVE | TERMINAL))}")])
    wanted = RunFilter(task_id=task_id, state=state, queue=request.query.get("queue"))
    return page_answer(
        request, await api.runs.page(request.namespace, wanted, cursor_of(request, UUID), limit_of(request))
    )


async def _demand_version(api: Context, executor: Executor, request: Request, run_id: UUID) -> None:
    """Raise PreconditionFailed unless the run is at the version that the caller expects, if it expects one."""
    expected = request.if_match()
    if expected is None:
        return
    version = found(await api.runs.lock(executor, request.namespace, run_id), "run", run_id)
    if version != expected:
        raise PreconditionFailed(expected, version)


async def _get(api: Context, request: Request) -> Run:
    run_id = request.uuid("run")
    return found(await api.runs.get(request.namespace, run_id), "run", run_id)
