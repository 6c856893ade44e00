"""Routes as data: one table drives dispatch, the OpenAPI document and the labels of the metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

import msgspec
from starlette.responses import Response
from starlette.types import Scope

from scheduler.api.problems import Refusal
from scheduler.domain.access import Open, Permission

if TYPE_CHECKING:
    from scheduler.api.context import Context
    from scheduler.api.requests import Request

Handler = Callable[["Context", "Request"], Awaitable[Response]]


class Query(msgspec.Struct, frozen=True):
    """A query parameter as the OpenAPI document describes it."""

    name: str
    type: Any
    description: str


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path.

    `path` is a template: `/api/tasks/{id}`. `request` is the type of the JSON body (None: there is none),
    `responses` the documented answers: status → type of the JSON body, a media type as text, or None for no body.
    `errors` are the statuses of problems beyond those that every route may answer with. `permission` is what whoever
    asks must hold; there is no default, so that nothing is open by being forgotten. A run's own token opens the routes
    under `/api/runs/{id}` that say so (`run_token`), for that run.

    What changes something is logged: the handler runs in a transaction that ends with the entry (`audit="around"`). A
    handler that may not be held in one transaction writes it in each of its own (`audit="within"`). Of a body that is
    `confidential`, not even a hash is kept that could be guessed at.
    """

    method: str
    path: str
    permission: Permission | Open
    handler: Handler
    summary: str
    tag: str
    responses: Mapping[int, Any]
    errors: Sequence[int] = ()
    request: Any = None
    request_media: Sequence[str] = ("application/json",)
    optional_body: bool = False
    query: Sequence[Query] = ()
    example: Any = None
    run_token: bool = False
    audit: Literal["around", "within"] = "around"
    confidential: bool = False

    @property
    def mutates(self) -> bool:
        """Whether it may change something."""
        return self.method != "GET"

    @property
    def conditional(self) -> bool:
        """Whether it edits something that has a version."""
        return 412 in self.errors and self.method in ("PUT", "PATCH", "DELETE")

    @property
    def operation(self) -> str:
        """The handler's name, unique in the table."""
        return str(getattr(self.handler, "__name__", ""))


_CURSOR = Query("cursor", str, "Where to go on: `next_cursor` of the page before.")
PAGED = (Query("limit", int, "How many items at most, 1 to 1000 (default 100)."), _CURSOR)
WHOLE = (Query("limit", int, "How many items at most, 1 to 1000 (default 1000)."), _CURSOR)
QUEUE = Query("queue", str, "Only those of this queue.")


def probe(path: str, permission: Permission | Open, handler: Handler, summary: str, responses: dict[int, Any]) -> Route:
    """Return a route that tells of this process itself."""
    return Route(
        method="GET",
        path=path,
        permission=permission,
        handler=handler,
        summary=summary,
        tag="health",
        responses=responses,
    )


class _Node:
    """One step of a path: fixed text or a parameter, and the routes that end here."""

    __slots__ = ("children", "parameter", "routes")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.parameter: tuple[str, _Node] | None = None
        self.routes: dict[str, Route] = {}


class Router:
    """Finds routes by method and path."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._root = _Node()
        self._fixed: dict[tuple[str, str], Route] = {}
        for route in routes:
            self._add(route)

    def find(self, scope: Scope) -> tuple[Route, dict[str, str]]:
        """Return the route and its path parameters. Raises a 404 or 405 Refusal."""
        method = scope["method"]
        route = self._fixed.get((method, scope["path"]))
        if route is not None:
            return route, {}
        node, params = self._walk(scope)
        route = node.routes.get(method)
        if route is None and method == "HEAD":
            route = node.routes.get("GET")
        if route is None:
            allowed = {*node.routes, *(["HEAD"] if "GET" in node.routes else [])}
            allow = ", ".join(sorted(allowed)).encode()
            raise Refusal(
                405, "method-not-allowed", f"{method} is not among {allow.decode()}", headers=[(b"allow", allow)]
            )
        return route, params

    def _add(self, route: Route) -> None:
        node = self._root
        for step in route.path.strip("/").split("/"):
            if step.startswith("{"):
                if node.parameter is None:
                    node.parameter = (step.strip("{}"), _Node())
                node = node.parameter[1]
            else:
                node = node.children.setdefault(step, _Node())
        if route.method in node.routes:
            raise ValueError(f"{route.method} {route.path} is there twice")
        node.routes[route.method] = route
        if "{" not in route.path:
            self._fixed[route.method, route.path] = route

    def _walk(self, scope: Scope) -> tuple[_Node, dict[str, str]]:
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        node, params = self._root, {}
        for step in raw.decode("latin-1").lstrip("/").split("/"):
            following = node.children.get(step)
            if following is None and node.parameter is not None and step:
                name, following = node.parameter
                params[name] = _decoded(step) if "%" in step else step
            if following is None:
                raise _nowhere()
            node = following
        if not node.routes:
            raise _nowhere()
        return node, params


def _decoded(step: str) -> str:
    try:
        text = unquote(step, errors="strict")
    except UnicodeDecodeError:
        raise _nowhere() from None
    if "\x00" in text:
        raise _nowhere()
    return text


def _nowhere() -> Refusal:
    return Refusal(404, "not-found", "there is nothing at this path")
