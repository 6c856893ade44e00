"""Who asks, about which namespace, and whether that one may: decided before a handler or a body is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from starlette.types import Scope

from scheduler.api.credentials import Credentials
from scheduler.api.routing import Route
from scheduler.api.tenancy import Tenancy
from scheduler.domain.access import (
    ANONYMOUS,
    DEFAULT_NAMESPACE,
    DEVELOPER,
    OPEN,
    Permission,
    Principal,
    RunScope,
    namespace_for,
)
from scheduler.domain.errors import Forbidden, Unauthenticated

NAMESPACE_HEADER = "DTS-Namespace"


class Gate:
    """Admits requests to routes. What `open_to_all` guards is for everybody, known or not."""

    def __init__(
        self, credentials: Credentials, tenancy: Tenancy, *, development: bool, open_to_all: frozenset[Permission]
    ) -> None:
        self._credentials = credentials
        self._tenancy = tenancy
        self._development = development
        self._open_to_all = open_to_all | {OPEN}

    async def identify(self, route: Route, headers: Mapping[bytes, bytes], scope: Scope) -> Principal:
        """Return who asks. Raises Unauthenticated, TooMany, Overloaded, or StoreUnavailable."""
        if route.permission in self._open_to_all:
            return ANONYMOUS
        header = headers.get(b"authorization")
        if header is not None:
            return self._credentials.known(header) or await self._credentials.verify(header, _address(scope))
        if self._development:
            return DEVELOPER
        raise Unauthenticated("send an API key or a token: Authorization: Bearer, a space, and the key")

    async def admit(
        self, principal: Principal, route: Route, params: Mapping[str, str], headers: Mapping[bytes, bytes]
    ) -> str:
        """Return about which namespace the principal asks.

        Raises Forbidden, NotFound for a namespace, or StoreUnavailable.
        """
        if route.permission in self._open_to_all:
            return DEFAULT_NAMESPACE
        if principal.run is None:
            principal.demand(route.permission)  # type: ignore[arg-type]  # OPEN has returned above
        else:
            _demand_own(principal.run, route, params)
        wanted = headers.get(b"dts-namespace")
        namespace = namespace_for(principal, None if wanted is None else wanted.decode("latin-1"))
        await self._tenancy.demand(namespace)
        return namespace


def _demand_own(own: RunScope, route: Route, params: Mapping[str, str]) -> None:
    """Raise Forbidden unless this is one of the routes that a running command may use, about its own run."""
    try:
        if route.run_token and UUID(params["id"]) == own.run_id:
            return
    except (KeyError, ValueError):
        pass
    raise Forbidden("a run's token opens its own run only: its checkpoint, fence, outputs, logs and event", None)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
