"""Secrets over HTTP: values go in and never come out. Only workers decrypt them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from scheduler.api.context import Context, found
from scheduler.api.cursors import cursor_of, limit_of, page_answer
from scheduler.api.payloads import SecretPage
from scheduler.api.pointers import pointer
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Reply, answer, etag, nothing
from scheduler.api.routing import PAGED, Route
from scheduler.domain.errors import Conflict, FieldError, InvalidInput, PreconditionFailed
from scheduler.domain.task import SecretRef, TaskSpec
from scheduler.wire.secrets import NewSecret, Secret

_decoder = msgspec.json.Decoder(NewSecret)


async def store_secret(api: Context, request: Request) -> Reply:
    """Store a secret, or the next version of one. The value is never shown again."""
    request.demand_json()
    wanted = decode(_decoder, await request.body(api.settings.max_body, api.settings.body_timeout))
    if not wanted.name.isprintable() or "/" in wanted.name:
        raise InvalidInput([FieldError("/name", "may hold printable characters but '/' only")])
    if not wanted.value.strip():
        raise InvalidInput([FieldError("/value", "is blank")])
    if api.settings.master_keys is None:
        raise Conflict("no_master_key", "this server has no key to encrypt with: secrets.master_key")
    async with api.database.transaction() as executor:
        secret = await api.secrets.put(
            executor, api.settings.master_keys, request.namespace, wanted.name, wanted.value, request.actor
        )
    if secret is None:
        raise Conflict("changed_meanwhile", "the secret was stored at the same time by somebody else; try again")
    request.note(object=secret.name, version_before=secret.version - 1 or None)
    return answer(secret, 201, (etag(secret.version),))


async def list_secrets(api: Context, request: Request) -> Reply:
    """List secrets by name, without their values."""
    request.allow_query("limit", "cursor")
    return page_answer(request, await api.secrets.page(request.namespace, cursor_of(request, str), limit_of(request)))


async def delete_secret(api: Context, request: Request) -> Reply:
    """Delete a secret that no recurring task or workflow uses."""
    name, expected = request.params["name"], request.if_match()
    async with api.database.transaction() as executor:
        version = found(await api.secrets.lock(executor, request.namespace, name), "secret", name[:100])
        if expected is not None and expected != version:
            raise PreconditionFailed(expected, version)
        if users := await api.secrets.users(executor, request.namespace, name):
            raise Conflict("in_use", f"it is used by {', '.join(repr(user) for user in users)}")
        await api.secrets.delete(executor, request.namespace, name)
    request.note(version_before=version)
    return nothing()


async def refuse_unknown_secrets(api: Context, namespace: str, specs: Sequence[TaskSpec], at: str) -> None:
    """Raise InvalidInput if a task's environment names a secret that its namespace does not have.

    `at` is the pointer of a task in the body.
    """
    used = [
        (index, variable, value.secret)
        for index, spec in enumerate(specs)
        for variable, value in spec.env.items()
        if isinstance(value, SecretRef)
    ]
    if not used:
        return
    missing = await api.secrets.missing(namespace, {name for _, _, name in used})
    errors = [
        FieldError(at.format(index=index) + pointer("env", variable, "secret"), f"there is no secret {name!r}")
        for index, variable, name in used
        if name in missing
    ]
    if errors:
        raise InvalidInput(errors[:100])


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/api/secrets",
        permission="secret:manage",
        handler=store_secret,
        confidential=True,
        summary="Store a secret, or the next version of one",
        tag="access",
        request=NewSecret,
        example={"name": "database-password", "value": "correct horse battery staple"},
        responses={201: Secret},
        errors=(408, 409, 413, 415, 422),
    ),
    Route(
        method="GET",
        path="/api/secrets",
        permission="secret:manage",
        handler=list_secrets,
        summary="List secrets, without their values",
        tag="access",
        query=PAGED,
        responses={200: SecretPage},
        errors=(422,),
    ),
    Route(
        method="DELETE",
        path="/api/secrets/{name}",
        permission="secret:manage",
        handler=delete_secret,
        summary="Delete a secret that no recurring task uses",
        tag="access",
        responses={204: None},
        errors=(404, 409, 412),
    ),
)
