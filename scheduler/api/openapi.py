"""The OpenAPI 3.1 document, made of the route table and the types that really decode and encode the bodies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from scheduler import __version__
from scheduler.api.context import Context
from scheduler.api.problems import Problem
from scheduler.api.requests import Request
from scheduler.api.responses import Reply
from scheduler.api.routing import Query, Route

_TEMPLATE = "#/components/schemas/{name}"
_EVERYWHERE = (400, 403, 500, 503)  # unreadable, wrong host, our fault, not now
_MEANINGS = {
    200: "Done",
    201: "Created",
    202: "Accepted: it will be done",
    204: "Done",
    400: "The request cannot be read, or its body has not the documented shape",
    403: "The Host or Origin is no loopback name",
    404: "There is no such object",
    408: "The body did not arrive in time",
    409: "The object's present state refuses the change",
    412: "The object has changed: If-Match names another version",
    413: "The body is too large",
    415: "The body's content type is not accepted here",
    422: "Well-formed, but it means something impossible",
    500: "The server failed",
    503: "Not now: the database is away, or too much waits; see Retry-After",
}


async def openapi(api: Context, request: Request) -> Reply:  # noqa: ARG001 - every handler takes both
    """Return this interface's OpenAPI document."""
    return Reply(_encoded())


@cache
def _encoded() -> bytes:
    from scheduler.api.routes import ROUTES  # noqa: PLC0415 - the table contains this module's own route

    return msgspec.json.encode(document(ROUTES))


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document as JSON values."""
    types = _types(routes)
    schemas, components = msgspec.json.schema_components(types, ref_template=_TEMPLATE)
    schema_of: dict[str, Any] = {repr(type_): schema for type_, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    seen: dict[str, int] = {}
    for route in routes:
        seen[route.operation] = seen.get(route.operation, 0) + 1
        operation = _operation(route, schema_of)
        if seen[route.operation] > 1:
            operation["operationId"] += f"_{seen[route.operation]}"
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Distributed Task Scheduler",
            "version": __version__,
            "description": "Runs commands on time, once, on many machines, and can always say what happened and why.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {"schemas": components},
    }


def _types(routes: Sequence[Route]) -> list[Any]:
    types: dict[str, Any] = {repr(Problem): Problem}
    for route in routes:
        bodies = [route.request, *route.responses.values(), *(query.type for query in route.query)]
        for body in bodies:
            if body is not None and body is not bytes and not isinstance(body, tuple):
                types[repr(body)] = body
    return list(types.values())


def _operation(route: Route, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    parameters += [_query(query, schema_of) for query in route.query]
    if 412 in route.errors:
        description = "Only if the object is at this version: its ETag."
        parameters.append(
            {"name": "If-Match", "in": "header", "schema": {"type": "string"}, "description": description}
        )
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "description": (route.handler.__doc__ or "").strip(),
        "tags": [route.tag],
        "parameters": parameters,
        "responses": _responses(route, schema_of),
    }
    if route.request is not None:
        operation["requestBody"] = {"required": True, "content": _content(route, schema_of)}
    return operation


def _query(query: Query, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    schema = schema_of[repr(query.type)]
    return {"name": query.name, "in": "query", "description": query.description, "schema": schema}


def _content(route: Route, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for media in route.request_media:
        if route.request is bytes or "ndjson" in media:
            content[media] = {"schema": {"type": "string"}}
            continue
        content[media] = {"schema": schema_of[repr(route.request)]}
        if route.example is not None:
            content[media]["example"] = route.example
    return content


def _responses(route: Route, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, body in route.responses.items():
        responses[str(status)] = {"description": _MEANINGS[status], "headers": _headers(status, route)}
        if isinstance(body, tuple):
            responses[str(status)]["content"] = {media: {"schema": {"type": "string"}} for media in body}
        elif body is not None:
            responses[str(status)]["content"] = {"application/json": {"schema": schema_of[repr(body)]}}
    problem = {"application/problem+json": {"schema": schema_of[repr(Problem)]}}
    for status in sorted({*_EVERYWHERE, *route.errors}):
        answer = responses.setdefault(
            str(status), {"description": _MEANINGS[status], "headers": _headers(status, route), "content": {}}
        )
        answer["content"] |= problem
    return responses


def _headers(status: int, route: Route) -> dict[str, Any]:
    text = {"schema": {"type": "string"}}
    headers: dict[str, Any] = {"X-Request-ID": text}
    if status == 503:
        headers["Retry-After"] = text
    if status == 201 and not route.path.endswith("/batch"):
        headers["Location"] = text
    return headers
