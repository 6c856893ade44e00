"""API keys over HTTP: make one, list them, end one. Nobody gives a key what they do not hold themselves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

import msgspec

from scheduler.api.context import Context
from scheduler.api.cursors import cursor_of, limit_of, page_answer
from scheduler.api.payloads import KeyPage
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Reply, answer, nothing
from scheduler.api.routing import PAGED, Route
from scheduler.domain.access import DEFAULT_NAMESPACE, EVERY_NAMESPACE, may_grant
from scheduler.domain.durations import parse_duration
from scheduler.domain.errors import Conflict, FieldError, InvalidInput, NotFound
from scheduler.wire.access import IssuedKey, Key, NewKey

_decoder = msgspec.json.Decoder(NewKey)


async def create_key(api: Context, request: Request) -> Reply:
    """Make an API key; its text is in this answer and nowhere else."""
    request.demand_json()
    wanted = decode(_decoder, await request.body(api.settings.max_body, api.settings.body_timeout))
    namespaces = wanted.namespaces or [request.namespace]
    expires_at = _expiry(wanted, api.clock.now())
    within = None if EVERY_NAMESPACE in namespaces else sorted(set(namespaces))
    complaints = may_grant(request.principal, wanted.role, wanted.permissions, within)
    complaints += await _unknown(api, namespaces)
    if wanted.role is None and not wanted.permissions:
        complaints.append(FieldError("/role", "give a role, permissions, or both: this key could do nothing"))
    if not wanted.name.isprintable():
        complaints.append(FieldError("/name", "may hold printable characters only"))
    if complaints:
        raise InvalidInput(complaints)
    async with api.database.transaction() as executor:
        key = await api.keys.create(
            executor,
            name=wanted.name,
            role=wanted.role,
            permissions=wanted.permissions,
            namespaces=within,
            expires_at=expires_at,
            actor=request.actor,
        )
        if key is None:
            raise Conflict("name_taken", f"a key of these namespaces is already named {wanted.name!r}")
    return answer(key, 201, ((b"location", b"/api/keys/" + key.id.encode()), (b"cache-control", b"no-store")))


async def list_keys(api: Context, request: Request) -> Reply:
    """List the keys of the caller's namespaces that are not revoked, by id."""
    request.allow_query("limit", "cursor")
    page = await api.keys.page(request.principal.namespaces, cursor_of(request, str), limit_of(request))
    return page_answer(request, page)


async def get_key(api: Context, request: Request) -> Reply:
    """Return one key, without its secret."""
    stored = await api.keys.get(request.params["id"])
    own = request.principal.namespaces
    if stored is None or stored.revoked_at is not None or (own is not None and not own.issuperset(stored.namespaces)):
        raise NotFound("key", request.params["id"][:100])
    return answer(stored.shown())


async def revoke_key(api: Context, request: Request) -> Reply:
    """End a key: it is refused within seconds, everywhere."""
    identifier = request.params["id"]
    async with api.database.transaction() as executor:
        if not await api.keys.revoke(executor, identifier, request.principal.namespaces, request.actor):
            raise NotFound("key", identifier[:100])
    await api.database.once_committed(partial(api.credentials.revoked, identifier))
    return nothing()


async def _unknown(api: Context, namespaces: Sequence[str]) -> list[FieldError]:
    if all(name in api.tenancy.known or name == EVERY_NAMESPACE for name in namespaces):
        return []
    known = {EVERY_NAMESPACE, DEFAULT_NAMESPACE, *(namespace.name for namespace in await api.namespaces.all())}
    return [
        FieldError(f"/namespaces/{index}", "there is no such namespace")
        for index, name in enumerate(namespaces)
        if name not in known
    ]


def _expiry(wanted: NewKey, now: datetime) -> datetime | None:
    if wanted.expires_at is not None and wanted.expires_in is not None:
        raise InvalidInput([FieldError("/expires_in", "give expires_at or expires_in, not both")])
    expires_at = wanted.expires_at
    if expires_at is not None and expires_at.year > 9998:  # so that no conversion between zones can leave the calendar
        raise InvalidInput([FieldError("/expires_at", "is out of range: write a moment up to 9998")])
    if wanted.expires_in is not None:
        try:
            expires_at = now + timedelta(seconds=parse_duration(wanted.expires_in))
        except (ValueError, OverflowError) as error:
            raise InvalidInput([FieldError("/expires_in", str(error))]) from None
    if expires_at is not None and expires_at <= now:
        raise InvalidInput([FieldError("/expires_at", "has passed already")])
    return expires_at


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/api/keys",
        permission="key:manage",
        handler=create_key,
        summary="Make an API key",
        tag="access",
        request=NewKey,
        example={"name": "ci", "role": "editor", "expires_in": "90d"},
        responses={201: IssuedKey},
        errors=(408, 409, 413, 415, 422),
    ),
    Route(
        method="GET",
        path="/api/keys",
        permission="key:manage",
        handler=list_keys,
        summary="List API keys",
        tag="access",
        query=PAGED,
        responses={200: KeyPage},
        errors=(422,),
    ),
    Route(
        method="GET",
        path="/api/keys/{id}",
        permission="key:manage",
        handler=get_key,
        summary="Read an API key",
        tag="access",
        responses={200: Key},
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path="/api/keys/{id}",
        permission="key:manage",
        handler=revoke_key,
        summary="Revoke an API key",
        tag="access",
        responses={204: None},
        errors=(404,),
    ),
)
