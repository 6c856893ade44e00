"""Namespaces over HTTP: list one's own, and, for those who manage the installation, make, bound and delete them."""

from __future__ import annotations

from typing import Any

import msgspec

from scheduler.api.context import Context
from scheduler.api.cursors import whole_answer
from scheduler.api.edits import merge
from scheduler.api.payloads import NamespacePage
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Reply, answer, nothing
from scheduler.api.routing import WHOLE, Route
from scheduler.domain.access import DEFAULT_NAMESPACE
from scheduler.domain.errors import Conflict, NotFound
from scheduler.wire.access import Namespace, NewNamespace, Quotas

_new = msgspec.json.Decoder(NewNamespace)
_quotas = msgspec.json.Decoder(Quotas)
_patch = msgspec.json.Decoder(dict[str, Any])


async def list_namespaces(api: Context, request: Request) -> Reply:
    """List the caller's namespaces, with what each may have."""
    request.allow_query("limit", "cursor")
    principal = request.principal
    await api.tenancy.step()
    own = [namespace for namespace in api.tenancy.known.values() if principal.sees(namespace.name)]
    return whole_answer(request, own, lambda namespace: namespace.name, str)


async def create_namespace(api: Context, request: Request) -> Reply:
    """Make a namespace."""
    request.demand_json()
    wanted = decode(_new, await request.body(api.settings.max_body, api.settings.body_timeout))
    async with api.database.transaction() as executor:
        namespace = await api.namespaces.create(executor, wanted, request.actor)
        if namespace is None:
            raise Conflict("name_taken", f"the name {wanted.name!r} is, or once was, in use")
    await api.database.once_committed(api.tenancy.changed)
    return answer(namespace, 201, ((b"location", b"/api/namespaces/" + namespace.name.encode()),))


async def get_namespace(api: Context, request: Request) -> Reply:
    """Return one of the caller's namespaces."""
    name = request.params["name"]
    await api.tenancy.step()
    namespace = api.tenancy.known.get(name)
    if namespace is None or not request.principal.sees(name):
        raise NotFound("namespace", name[:63])
    return answer(namespace)


async def change_namespace(api: Context, request: Request) -> Reply:
    """Change what a namespace may have (merge patch); null takes a bound away."""
    request.demand_json()
    patch = decode(_patch, await request.body(api.settings.max_body, api.settings.body_timeout))
    name = request.params["name"]
    async with api.database.transaction() as executor:
        if await executor.fetchval("lock_namespace", name) is None:
            raise NotFound("namespace", name[:63])
        stored = next(n for n in await api.namespaces.all() if n.name == name)
        present = {q: getattr(stored, q) for q in Quotas.__struct_fields__}
        quotas = decode(_quotas, msgspec.json.encode(merge(present, patch)))
        namespace = await api.namespaces.set_quotas(executor, name, quotas, request.actor)
    await api.database.once_committed(api.tenancy.changed)
    return answer(namespace)


async def delete_namespace(api: Context, request: Request) -> Reply:
    """Delete a namespace without recurring tasks or live runs. Its name stays taken: its history goes by retention."""
    name = request.params["name"]
    if name == DEFAULT_NAMESPACE:
        raise Conflict("default_namespace", "the namespace default cannot be deleted")
    async with api.database.transaction() as executor:
        try:
            held = await api.namespaces.delete(executor, name, request.actor)
        except LookupError:
            raise NotFound("namespace", name[:63]) from None
        if held is not None:
            raise Conflict("namespace_in_use", f"the namespace still has {held}")
    await api.database.once_committed(api.tenancy.changed)
    return nothing()


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/api/namespaces",
        permission="namespace:manage",
        handler=create_namespace,
        summary="Make a namespace",
        tag="access",
        request=NewNamespace,
        example={"name": "team-a", "max_pending": 100000},
        responses={201: Namespace},
        errors=(408, 409, 413, 415, 422),
    ),
    Route(
        method="GET",
        path="/api/namespaces",
        permission="namespace:read",
        handler=list_namespaces,
        summary="List namespaces",
        tag="access",
        query=WHOLE,
        responses={200: NamespacePage},
        errors=(422,),
    ),
    Route(
        method="GET",
        path="/api/namespaces/{name}",
        permission="namespace:read",
        handler=get_namespace,
        summary="Read a namespace",
        tag="access",
        responses={200: Namespace},
        errors=(404,),
    ),
    Route(
        method="PATCH",
        path="/api/namespaces/{name}",
        permission="namespace:manage",
        handler=change_namespace,
        summary="Change what a namespace may have (merge patch)",
        tag="access",
        request=dict[str, Any],
        request_media=("application/merge-patch+json", "application/json"),
        example={"max_pending": 1000, "submit_rate": None},
        responses={200: Namespace},
        errors=(404, 408, 413, 415, 422),
    ),
    Route(
        method="DELETE",
        path="/api/namespaces/{name}",
        permission="namespace:manage",
        handler=delete_namespace,
        summary="Delete an empty namespace",
        tag="access",
        responses={204: None},
        errors=(404, 409),
    ),
)
