"""Every method of every route, from the route table itself: a route that nobody thought of fails here."""

from __future__ import annotations

import re

import pytest

from scheduler.api.openapi import document
from scheduler.api.routes import ROUTES
from scheduler.api.routing import Route
from scheduler.domain.access import GRANTS, OPEN, PERMISSIONS, ROLES, Role
from scheduler.domain.clock import SystemClock
from scheduler.domain.ids import IdSource
from tests.roles.api.access_support import Caller, Closed

PROBES = {"/health/live", "/livez", "/health/ready", "/readyz"}
DOCUMENTATION = {"/openapi.json", "/docs", "/docs/page.js", "/docs/page.css"}


def target(route: Route) -> str:
    """A path that names nothing that exists."""
    return re.sub(
        r"{(\w+)}", lambda match: "7" if match[1] == "fence" else str(IdSource(SystemClock()).one()), route.path
    )


async def status(caller: Caller, route: Route) -> tuple[int, str | None]:
    # Streams that would go on for ever refuse to go on from there.
    headers = {"last-event-id": "none of yours"}
    answer = await caller.request(route.method, target(route), {} if route.request else None, headers=headers)
    code = answer.json.get("code") if answer.headers.get("content-type") == "application/problem+json" else None
    return answer.status, code


def test_only_probes_and_documentation_are_open() -> None:
    assert {route.path for route in ROUTES if route.permission == OPEN} == PROBES | DOCUMENTATION


def test_every_permission_of_a_route_is_a_permission() -> None:
    assert {route.permission for route in ROUTES} <= {OPEN, *PERMISSIONS}


def test_a_route_without_a_permission_cannot_be_made() -> None:
    route = ROUTES[0]
    with pytest.raises(TypeError, match="permission"):
        Route(  # type: ignore[call-arg]
            method="GET", path="/x", handler=route.handler, summary="x", tag="x", responses={200: None}
        )


async def test_anonymously_nothing_answers_but_what_is_open(closed: Closed) -> None:
    for route in ROUTES:
        code, _ = await status(closed.anonymous, route)
        assert (code in (200, 503)) if route.permission == OPEN else code == 401, (route.method, route.path, code)
        if route.method == "GET":
            head = await closed.anonymous.request("HEAD", target(route))
            assert (head.status == 401) is (route.permission != OPEN), route.path


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_opens_the_routes_of_its_permissions_and_no_others(closed: Closed, role: Role) -> None:
    caller = await closed.key(role)
    for route in ROUTES:
        code, lacking = await status(caller, route)
        assert code not in (401, 500), (route.method, route.path)
        if route.permission in {OPEN, *GRANTS[role]}:
            assert (code, lacking) != (403, route.permission), (route.method, route.path)
        else:
            assert (code, lacking) == (403, route.permission), (route.method, route.path, code)


async def test_a_key_with_one_permission_opens_its_routes_only(closed: Closed) -> None:
    caller = await closed.key(None, permissions=["metrics:read"])
    for route in ROUTES:
        code, _ = await status(caller, route)
        assert (code != 403) is (route.permission in (OPEN, "metrics:read")), (route.method, route.path, code)


def test_the_document_states_what_each_operation_needs() -> None:
    described = document(ROUTES)
    assert described["components"]["securitySchemes"].keys() == {"bearer", "run"}
    for route in ROUTES:
        operation = described["paths"][route.path][route.method.lower()]
        if route.permission == OPEN:
            assert operation["security"] == []
        else:
            assert {"bearer": [route.permission]} in operation["security"]
            assert {"401", "403", "404", "429"} <= operation["responses"].keys()
        assert ({"run": []} in operation["security"]) is route.run_token
