"""Cancelling and retrying many runs by filter: a few hundred in each transaction, so that nobody waits long for a lock.

Each transaction stands by itself: what one has committed stays, whatever becomes of the next, and is told (with an
Idempotency-Key they are all one). Asked again, a bulk request goes on with what is left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from uuid import UUID

import asyncpg
import msgspec

from scheduler.api.context import Context
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Reply, answer
from scheduler.api.routing import Route
from scheduler.domain.errors import FieldError, InvalidInput, Overloaded, TooMany
from scheduler.store.audit import Entry, write_audit
from scheduler.store.database import RETRYABLE, Executor, Pinned, despite_collisions
from scheduler.store.pages import first_ids
from scheduler.store.runs import RunFilter
from scheduler.wire.bulk import BulkCancelled, BulkRetried, CancelRuns, RetryRuns

_AT_ONCE = 500

_cancel = msgspec.json.Decoder(CancelRuns)
_retry = msgspec.json.Decoder(RetryRuns)


async def cancel_runs(api: Context, request: Request) -> Reply:
    """Cancel the live runs that match; those that execute are asked to end. What has left the state by then stays."""
    request.demand_json()
    wanted = decode(_cancel, await request.body(api.settings.max_body, api.settings.body_timeout))
    if wanted.state is None and wanted.queue is None and wanted.task_id is None:
        raise InvalidInput([FieldError("", "say which runs: state, queue or task_id")])
    filters = RunFilter(task_id=wanted.task_id, state=wanted.state, queue=wanted.queue)
    found = await api.runs.live(request.namespace, filters, wanted.limit + 1)
    matched, more = found[: wanted.limit], len(found) > wanted.limit
    done: list[UUID] = []
    requested: list[UUID] = []

    async def cancel(some: Sequence[UUID]) -> None:
        async with api.database.transaction() as executor:
            cancelled = await api.runs.cancel(executor, request.namespace, some, state=wanted.state)
            await _log(executor, request, "cancel_runs", len(cancelled.done) + len(cancelled.requested))
        api.offers.cancel(cancelled.requested)
        api.offers.settled(cancelled.settled)
        done.extend(cancelled.done)
        requested.extend(run_id for run_id, _ in cancelled.requested)

    more |= not await _in_turn(api, [] if wanted.dry_run else matched, cancel)
    body = BulkCancelled(dry_run=wanted.dry_run, matched=matched, cancelled=done, requested=requested, more=more)
    return answer(body)


async def retry_runs(api: Context, request: Request) -> Reply:
    """Let the ended runs that match run again, with fresh budgets and their tasks' present definitions.

    What has left the state by then stays.
    """
    request.demand_json()
    wanted = decode(_retry, await request.body(api.settings.max_body, api.settings.body_timeout))
    filters = RunFilter(task_id=wanted.task_id, state=wanted.state, queue=wanted.queue)
    found = await first_ids(partial(api.runs.page, request.namespace, filters), wanted.limit + 1)
    matched, more = found[: wanted.limit], len(found) > wanted.limit
    retried: list[UUID] = []

    async def retry(some: Sequence[UUID]) -> None:
        async with api.database.transaction() as executor:
            revivable = await api.runs.revivable(executor, request.namespace, some)
            specs = [(run.run_id, run.spec) for run in revivable.values() if not run.deleted]
            api.admission.admit(request.namespace, len(specs))
            revived = await api.runs.revive(executor, request.namespace, specs, request.actor, state=wanted.state)
            await _log(executor, request, "retry_runs", len(revived))
        retried.extend(revived)
        api.offers.revived(revived)

    more |= not await _in_turn(api, [] if wanted.dry_run else matched, retry)
    return answer(BulkRetried(dry_run=wanted.dry_run, matched=matched, retried=retried, more=more))


async def _in_turn(api: Context, ids: Sequence[UUID], act: Callable[[Sequence[UUID]], Awaitable[None]]) -> bool:
    """Act on the runs, a few hundred after the other; say whether that came to its end.

    While nothing is done, or all is one transaction, a refusal is raised. Later it only ends this: what was done has to
    be told, and whoever called the handler anew would let it do as much again.
    """
    for number, some in enumerate(_chunks(ids)):
        if number == 0 or isinstance(api.database, Pinned):
            await act(some)
        elif not await _insist(act, some):
            return False
    return True


async def _insist(act: Callable[[Sequence[UUID]], Awaitable[None]], some: Sequence[UUID]) -> bool:
    """Act, again if it collides with others; False if it is refused for now."""
    try:
        await despite_collisions(partial(act, some))
    except (asyncpg.QueryCanceledError, Overloaded, TooMany, *RETRYABLE):
        return False
    return True


async def _log(executor: Executor, request: Request, action: str, count: int) -> None:
    entry = Entry(
        namespace=request.namespace,
        actor=request.actor,
        action=action,
        object=None,
        request_id=request.request_id,
        status=200,
        count=count,
        address=request.address,
    )
    await write_audit(executor, [entry])


def _chunks(ids: Sequence[UUID]) -> list[list[UUID]]:
    return [list(ids[start : start + _AT_ONCE]) for start in range(0, len(ids), _AT_ONCE)]


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/api/runs/cancel",
        permission="run:control",
        handler=cancel_runs,
        audit="within",
        summary="Cancel many runs",
        tag="runs",
        request=CancelRuns,
        example={"queue": "reports", "limit": 500, "dry_run": True},
        responses={200: BulkCancelled},
        errors=(408, 413, 415, 422),
    ),
    Route(
        method="POST",
        path="/api/runs/retry",
        permission="run:control",
        handler=retry_runs,
        audit="within",
        summary="Run many ended runs again",
        tag="runs",
        request=RetryRuns,
        example={"state": "failed", "queue": "reports"},
        responses={200: BulkRetried},
        errors=(408, 413, 415),
    ),
)
