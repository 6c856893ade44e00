"""Dead letters: list them, replay them (with the definition mended, if need be), or discard them."""

from __future__ import annotations

from functools import partial
from typing import Final, Literal
from uuid import UUID

import msgspec

from scheduler.api.context import Context
from scheduler.api.cursors import MAX_LIMIT, cursor_of, limit_of, page_answer
from scheduler.api.edits import change_definition, patched
from scheduler.api.payloads import DeadLetterPage, ReplayAnswer
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Reply, answer
from scheduler.api.routing import PAGED, QUEUE, Query, Route
from scheduler.domain.errors import FieldError, InvalidInput
from scheduler.store.dead_letters import DeadLetterFilter
from scheduler.store.pages import first_ids
from scheduler.wire.dead_letters import Decided, Replay, Selection

_MAX_CANARIES: Final = 10  # each of the others waits for each of these

_replay = msgspec.json.Decoder(Replay)
_discard = msgspec.json.Decoder(Selection)


async def list_dead_letters(api: Context, request: Request) -> Reply:
    """List open dead letters, newest first."""
    request.allow_query("queue", "task_id", "reason", "limit", "cursor")
    wanted = DeadLetterFilter(
        queue=request.query.get("queue"),
        task_id=request.query_uuid("task_id"),
        reason=request.query.get("reason"),
    )
    page = await api.dead_letters.page(request.namespace, wanted, cursor_of(request, UUID), limit_of(request))
    return page_answer(request, page)


async def replay_dead_letters(api: Context, request: Request) -> Reply:
    """Let the runs of dead letters run again with fresh budgets, after editing their tasks if asked to."""
    request.demand_json()
    wanted = decode(_replay, await request.body(api.settings.max_body, api.settings.body_timeout))
    if wanted.canary is not None and not 1 <= wanted.canary <= _MAX_CANARIES:
        raise InvalidInput([FieldError("/canary", f"must be from 1 to {_MAX_CANARIES}")])
    ids = await _select(api, request, wanted)
    letters = await api.dead_letters.find(request.namespace, ids)
    still_open = {i: letters[i] for i in ids if i in letters and letters[i].state == "open"}
    if wanted.edits:
        await _edit_tasks(api, request, {letter.task_id for letter in still_open.values()}, wanted)
    async with api.database.transaction() as executor:
        run_ids = [letter.run_id for letter in still_open.values()]
        revivable = await api.runs.revivable(executor, request.namespace, run_ids)
        specs = [(r.run_id, r.spec) for r in revivable.values() if not r.deleted]
        api.admission.admit(request.namespace, len(specs))
        revived = set(await api.runs.revive(executor, request.namespace, specs, request.actor))
        chosen = {identifier: letter for identifier, letter in still_open.items() if letter.run_id in revived}
        rest = dict(list(chosen.items())[wanted.canary or len(chosen) :])
        if rest:
            canaries = [letter for identifier, letter in chosen.items() if identifier not in rest]
            await api.dead_letters.hold(executor, request.namespace, canaries, rest)
    if revived:
        api.offers.revived(revived)
    items = []
    for identifier in ids:
        letter = letters.get(identifier)
        if letter is None:
            items.append(Decided(id=identifier, run_id=None, result="refused", code="unknown"))
        elif identifier in chosen:
            result: Literal["waiting", "replayed"] = "waiting" if identifier in rest else "replayed"
            items.append(Decided(id=identifier, run_id=letter.run_id, result=result))
        else:
            code = f"already_{letter.state}"
            if letter.state == "open":
                known = revivable.get(letter.run_id)
                code = "task_deleted" if known is None or known.deleted else "not_retriable"
            items.append(Decided(id=identifier, run_id=letter.run_id, result="refused", code=code))
    request.note(count=len(revived))
    return answer(ReplayAnswer(items=items))


async def discard_dead_letters(api: Context, request: Request) -> Reply:
    """Close dead letters for good; their runs stay as they are."""
    request.demand_json()
    wanted = decode(_discard, await request.body(api.settings.max_body, api.settings.body_timeout))
    ids = await _select(api, request, wanted)
    letters = await api.dead_letters.find(request.namespace, ids)
    async with api.database.transaction() as executor:
        discarded = set(await api.dead_letters.discard(executor, request.namespace, ids, request.actor))
    items = []
    for identifier in ids:
        letter = letters.get(identifier)
        if letter is None:
            items.append(Decided(id=identifier, run_id=None, result="refused", code="unknown"))
        elif identifier in discarded:
            items.append(Decided(id=identifier, run_id=letter.run_id, result="discarded"))
        else:
            code = f"already_{'replayed' if letter.state == 'open' else letter.state}"
            items.append(Decided(id=identifier, run_id=letter.run_id, result="refused", code=code))
    request.note(count=len(discarded))
    return answer(ReplayAnswer(items=items))


async def _select(api: Context, request: Request, wanted: Selection) -> list[UUID]:
    filters = DeadLetterFilter(queue=wanted.queue, task_id=wanted.task_id, reason=wanted.reason)
    if not 1 <= wanted.limit <= MAX_LIMIT:
        raise InvalidInput([FieldError("/limit", f"must be from 1 to {MAX_LIMIT}")])
    if wanted.ids is None:
        return await first_ids(partial(api.dead_letters.page, request.namespace, filters), wanted.limit)
    if filters != DeadLetterFilter():
        raise InvalidInput([FieldError("/ids", "give ids or a filter, not both")])
    if len(wanted.ids) > MAX_LIMIT:
        raise InvalidInput([FieldError("/ids", f"{MAX_LIMIT} at a time at most")])
    return list(dict.fromkeys(wanted.ids))


async def _edit_tasks(api: Context, request: Request, task_ids: set[UUID], wanted: Replay) -> None:
    """Edit every task before the first run is revived; each edit is a change of its own, visible as a new version."""
    for task_id in sorted(task_ids):
        task = await api.tasks.get(request.namespace, task_id)
        if task is None:
            continue
        try:
            await change_definition(api, request, task, patched(task.spec, wanted.edits or {}), None)
        except InvalidInput as error:
            raise InvalidInput([FieldError(f"/edits{e.pointer}", e.detail) for e in error.errors]) from None


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/api/dead-letter",
        permission="run:read",
        handler=list_dead_letters,
        summary="List open dead letters",
        tag="dead letters",
        query=(
            QUEUE,
            Query("task_id", UUID, "Only those of this task."),
            Query("reason", str, "Only those with this reason, whole or up to its colon."),
            *PAGED,
        ),
        responses={200: DeadLetterPage},
        errors=(422,),
    ),
    Route(
        method="POST",
        path="/api/dead-letter/replay",
        permission="run:control",
        handler=replay_dead_letters,
        summary="Run dead letters again",
        tag="dead letters",
        request=Replay,
        example={"reason": "timeout", "edits": {"timeout": "2h"}, "canary": 1},
        responses={200: ReplayAnswer},
        errors=(408, 409, 413, 415, 422),
    ),
    Route(
        method="POST",
        path="/api/dead-letter/discard",
        permission="run:control",
        handler=discard_dead_letters,
        summary="Close dead letters",
        tag="dead letters",
        request=Selection,
        example={"queue": "default", "limit": 100},
        responses={200: ReplayAnswer},
        errors=(408, 413, 415, 422),
    ),
)
