"""Dead letters: list them, replay them (with the definition mended, if need be), or discard them."""

from __future__ import annotations

from uuid import UUID

import msgspec

from scheduler.api.context import Context
from scheduler.api.cursors import MAX_LIMIT, cursor_of, limit_of, page_answer
from scheduler.api.edits import change_definition, patched
from scheduler.api.payloads import ReplayAnswer
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Reply, answer
from scheduler.domain.errors import FieldError, InvalidInput
from scheduler.store.dead_letters import DeadLetterFilter
from scheduler.wire.dead_letters import Decided, Replay, Selection

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
    ids = await _select(api, request, wanted)
    letters = await api.dead_letters.find(request.namespace, ids)
    run_ids = [run_id for run_id, _, state in letters.values() if state == "open"]
    if wanted.edits:
        await _edit_tasks(api, request, {task_id for _, task_id, state in letters.values() if state == "open"}, wanted)
    revivable = await api.runs.revivable(request.namespace, run_ids)
    specs = [(r.run_id, r.spec) for r in revivable.values() if not r.deleted]
    api.admission.admit(request.namespace, len(specs))
    async with api.database.transaction() as executor:
        revived = set(await api.runs.revive(executor, request.namespace, specs, request.actor))
    if revived:
        api.offers.wake_control()
    items = []
    for identifier in ids:
        run_id, _, state = letters.get(identifier, (None, None, "unknown"))
        if run_id in revived:
            items.append(Decided(id=identifier, run_id=run_id, result="replayed"))
        else:
            code = f"already_{state}" if state in ("replayed", "discarded") else "unknown"
            if run_id is not None and state == "open":
                known = revivable.get(run_id)
                code = "task_deleted" if known is None or known.deleted else "not_retriable"
            items.append(Decided(id=identifier, run_id=run_id, result="refused", code=code))
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
        run_id, _, state = letters.get(identifier, (None, None, "unknown"))
        if identifier in discarded:
            items.append(Decided(id=identifier, run_id=run_id, result="discarded"))
        else:
            code = "unknown" if run_id is None else f"already_{'replayed' if state == 'open' else state}"
            items.append(Decided(id=identifier, run_id=run_id, result="refused", code=code))
    request.note(count=len(discarded))
    return answer(ReplayAnswer(items=items))


async def _select(api: Context, request: Request, wanted: Selection) -> list[UUID]:
    filters = DeadLetterFilter(queue=wanted.queue, task_id=wanted.task_id, reason=wanted.reason)
    if not 1 <= wanted.limit <= MAX_LIMIT:
        raise InvalidInput([FieldError("/limit", f"must be from 1 to {MAX_LIMIT}")])
    if wanted.ids is None:
        page = await api.dead_letters.page(request.namespace, filters, None, wanted.limit)
        return [letter.id for letter in page.items]
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
