"""The OpenAPI 3.1 document, made of the route table and the types that really decode and encode the bodies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from scheduler import __version__
from scheduler.api.context import Context
from scheduler.api.examples import example
from scheduler.api.gate import NAMESPACE_HEADER
from scheduler.api.problems import Problem
from scheduler.api.requests import Request
from scheduler.api.responses import Reply
from scheduler.api.routing import Query, Route
from scheduler.domain.access import OPEN

_TEMPLATE = "#/components/schemas/{name}"
_EVERYWHERE = (400, 403, 500, 503)  # unreadable, wrong host, our fault, not now
_CLOSED = (401, 404, 429)  # unknown, no such namespace, unknown too often
_LOGGED = (408, 413, 415)  # whatever may change something is read to its end before anything is changed
_KEYED = (409, 422)  # with an Idempotency-Key, which may be in use
_MEANINGS = {
    200: "Done",
    201: "Created",
    202: "Accepted: it will be done",
    204: "Done",
    400: "The request cannot be read, or its body has not the documented shape",
    401: "The request does not show who sends it: no credentials, or none that hold",
    403: "Whoever sends the request may not do this; in development mode also: Host or Origin is no loopback name",
    404: "There is no such object",
    408: "The body did not arrive in time",
    409: "The object's present state refuses the change",
    412: "The object has changed: If-Match names another version",
    413: "The body is too large",
    415: "The body's content type is not accepted here",
    422: "Well-formed, but it means something impossible",
    428: "The request must say which version it means: If-Match",
    429: "Too often: see Retry-After",
    500: "The server failed",
    503: "Not now: the database is away, or too much waits; see Retry-After",
}


_NOWHERE = {"create_batch", "backfill_task", "publish_event", "store_secret"}
"""What creates several objects, or one that nobody can read at a place of its own."""

_TEXTS = {
    "text/plain": "one line\nanother line\n",
    "text/event-stream": 'id: 1:9\nevent: stdout\ndata: {"text":"one line\\n","position":0}\n\n',
    "text/html": "<!doctype html>",
    "text/javascript": '"use strict";',
    "text/css": "body {}",
}
_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (`dts_ID.SECRET`) or a JWT. The permission that each operation needs stands beside"
        " this scheme's name. Not asked for in development mode.",
    },
    "run": {
        "type": "http",
        "scheme": "bearer",
        "description": "What a running command finds in DTS_RUN_TOKEN: opens this operation for that run.",
    },
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": "^[!#-~]{1,255}$"},
    "description": "Sent again with the same key, the request is answered as before and does nothing again.",
}
_NAMESPACE = {
    "name": NAMESPACE_HEADER,
    "in": "header",
    "schema": {"type": "string"},
    "description": "Which namespace this is about: by default the caller's only one, else `default`.",
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
        "components": {"schemas": components, "securitySchemes": _SCHEMES},
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
    parameters = [_path(name, route) for name in re.findall(r"{(\w+)}", route.path)]
    parameters += [_query(query, schema_of) for query in route.query]
    if route.permission != OPEN:
        parameters.append(_NAMESPACE)
    if route.method == "POST":
        parameters.append(_KEY)
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
        "security": _security(route),
        "parameters": parameters,
        "responses": _responses(route, schema_of),
    }
    if route.request is not None:
        operation["requestBody"] = {"required": not route.optional_body, "content": _content(route, schema_of)}
    return operation


def _security(route: Route) -> list[dict[str, list[str]]]:
    """Say what opens the route: a key or token with its permission, or a run's own token, or nothing at all."""
    if route.permission == OPEN:
        return []
    schemes: list[dict[str, list[str]]] = [{"bearer": [route.permission]}]
    return [*schemes, {"run": []}] if route.run_token else schemes


def _path(name: str, route: Route) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if name == "id" and not route.path.startswith("/api/keys"):
        schema |= {"format": "uuid"}
    elif name == "fence":
        schema = {"type": "integer", "minimum": 0}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query(query: Query, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    schema = schema_of[repr(query.type)]
    return {"name": query.name, "in": "query", "description": query.description, "schema": schema}


def _content(route: Route, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for media in route.request_media:
        if route.request is bytes or "ndjson" in media:
            content[media] = {"schema": {"type": "string"}, "example": _lines(route.example)}
            continue
        content[media] = {"schema": schema_of[repr(route.request)]}
        content[media]["example"] = route.example if route.example is not None else example(route.request)
    return content


def _lines(value: Any) -> str:
    """Return an example as text: of a batch, one task a line."""
    if not isinstance(value, list):
        return "any bytes"
    return "".join(msgspec.json.encode(item).decode() + "\n" for item in value)


def _responses(route: Route, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, body in route.responses.items():
        responses[str(status)] = {"description": _MEANINGS[status], "headers": _headers(status, route)}
        if isinstance(body, tuple):
            text = {media: _TEXTS.get(media, "any bytes") for media in body}
            responses[str(status)]["content"] = {
                media: {"schema": {"type": "string"}, "example": shown} for media, shown in text.items()
            }
        elif body is not None:
            shown = {"schema": schema_of[repr(body)], "example": example(body)}
            responses[str(status)]["content"] = {"application/json": shown}
    problem = {"application/problem+json": {"schema": schema_of[repr(Problem)]}}
    closed = _CLOSED if route.permission != OPEN else ()
    logged = _LOGGED if route.mutates else ()
    keyed = _KEYED if route.method == "POST" else ()
    conditional = (428,) if route.conditional else ()
    for status in sorted({*_EVERYWHERE, *closed, *logged, *keyed, *conditional, *route.errors}):
        answer = responses.setdefault(
            str(status), {"description": _MEANINGS[status], "headers": _headers(status, route), "content": {}}
        )
        answer["content"] |= problem
    return responses


def _headers(status: int, route: Route) -> dict[str, Any]:
    text = {"schema": {"type": "string"}}
    headers: dict[str, Any] = {"X-Request-ID": text}
    if status in (429, 503):
        headers["Retry-After"] = text
    if route.method == "POST" and status < 300:
        headers["Idempotency-Replayed"] = text
    if status == 201 and route.operation not in _NOWHERE:
        headers["Location"] = text
    return headers
