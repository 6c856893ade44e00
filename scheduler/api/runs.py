"""Reading runs, and what can be done to one: cancel, retry, explain."""

from __future__ import annotations

from uuid import UUID

from scheduler.api.context import Context, found
from scheduler.api.cursors import cursor_of, limit_of, page_answer, whole_answer
from scheduler.api.payloads import Attempts, RunPage
from scheduler.api.requests import Request
from scheduler.api.responses import Reply, answer, etag
from scheduler.api.routing import PAGED, QUEUE, WHOLE, Query, Route
from scheduler.domain.blockers import blockers
from scheduler.domain.errors import Conflict, FieldError, InvalidInput, PreconditionFailed
from scheduler.domain.run import LIVE, TERMINAL, Run, RunState
from scheduler.store.database import Executor
from scheduler.store.runs import RunFilter
from scheduler.wire.runs import Cancelled, Explanation


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
    run = await named_run(api, request)
    return answer(run, 200, (etag(run.version),))


async def list_attempts(api: Context, request: Request) -> Reply:
    """Return the attempts of a run, in order."""
    request.allow_query("limit", "cursor")
    run = await named_run(api, request)
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
        version = await _lock(api, executor, request, run_id)
        cancelled = await api.runs.cancel(executor, request.namespace, [run_id])
    if not cancelled.done and not cancelled.requested:
        run = await named_run(api, request)
        raise Conflict("already_terminal", f"the run is {run.state}")
    api.offers.cancel(cancelled.requested)
    api.offers.settled(cancelled.settled)
    request.note(version_after=version + 1)
    body = Cancelled(cancelled=cancelled.done, requested=[run_id for run_id, _ in cancelled.requested])
    return answer(body, 202 if cancelled.requested else 200)


async def retry_run(api: Context, request: Request) -> Reply:
    """Let an ended run run again, now, with fresh budgets and the task's present definition."""
    run_id = request.uuid("run")
    async with api.database.transaction() as executor:
        revivable = found((await api.runs.revivable(executor, request.namespace, [run_id])).get(run_id), "run", run_id)
        if revivable.deleted:
            raise Conflict("task_deleted", "its task has been deleted")
        await _lock(api, executor, request, run_id)
        api.admission.admit(request.namespace, 1)
        revived = await api.runs.revive(executor, request.namespace, [(run_id, revivable.spec)], request.actor)
    if not revived:
        run = await named_run(api, request)
        why = "has not ended" if run.state in LIVE else f"is {run.state}, which is final"
        raise Conflict("not_retriable", f"the run {why}")
    api.offers.revived(revived)
    return await get_run(api, request)


async def _list(api: Context, request: Request, task_id: UUID | None) -> Reply:
    state = request.query.get("state")
    if state is not None and state not in LIVE | TERMINAL:
        raise InvalidInput([FieldError("?state", f"must be one of {', '.join(sorted(LIVE | TERMINAL))}")])
    wanted = RunFilter(task_id=task_id, state=state, queue=request.query.get("queue"))
    return page_answer(
        request, await api.runs.page(request.namespace, wanted, cursor_of(request, UUID), limit_of(request))
    )


async def _lock(api: Context, executor: Executor, request: Request, run_id: UUID) -> int:
    """Keep a run as it is until the transaction ends, and return its version.

    Raises NotFound; PreconditionFailed unless the run is at the version that the caller expects, if it expects one.
    """
    expected = request.if_match()
    version = found(await api.runs.lock(executor, request.namespace, run_id), "run", run_id)
    if expected is not None and version != expected:
        raise PreconditionFailed(expected, version)
    request.note(version_before=version)
    return version


async def named_run(api: Context, request: Request) -> Run:
    """Return the run that the path names. Raises NotFound."""
    run_id = request.uuid("run")
    return found(await api.runs.get(request.namespace, run_id), "run", run_id)


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/api/tasks/{id}/runs",
        permission="run:read",
        handler=list_runs_of_task,
        summary="List a task's runs",
        tag="runs",
        query=(Query("state", RunState, "Only those in this state."), QUEUE, *PAGED),
        responses={200: RunPage},
        errors=(404, 422),
    ),
    Route(
        method="GET",
        path="/api/runs",
        permission="run:read",
        handler=list_runs,
        summary="List runs",
        tag="runs",
        query=(
            Query("state", RunState, "Only those in this state."),
            QUEUE,
            Query("task_id", UUID, "Only those of this task."),
            *PAGED,
        ),
        responses={200: RunPage},
        errors=(422,),
    ),
    Route(
        method="GET",
        path="/api/runs/{id}",
        permission="run:read",
        handler=get_run,
        summary="Read a run",
        tag="runs",
        responses={200: Run},
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/api/runs/{id}/attempts",
        permission="run:read",
        handler=list_attempts,
        summary="List a run's attempts",
        tag="runs",
        query=WHOLE,
        responses={200: Attempts},
        errors=(404, 422),
    ),
    Route(
        method="GET",
        path="/api/runs/{id}/explain",
        permission="run:read",
        handler=explain_run,
        summary="Why a run is not running",
        tag="runs",
        responses={200: Explanation},
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/api/runs/{id}/cancel",
        permission="run:control",
        handler=cancel_run,
        summary="Cancel a run",
        tag="runs",
        responses={200: Cancelled, 202: Cancelled},
        errors=(404, 409, 412),
    ),
    Route(
        method="POST",
        path="/api/runs/{id}/retry",
        permission="run:control",
        handler=retry_run,
        summary="Run an ended run again",
        tag="runs",
        responses={200: Run},
        errors=(404, 409, 412),
    ),
)
