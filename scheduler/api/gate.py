"""Who asks, about which namespace, and whether that one may: decided before a handler or a body is looked at."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Scope

from scheduler.api.routing import Route
from scheduler.api.settings import ApiSettings
from scheduler.domain.access import ANONYMOUS, DEFAULT_NAMESPACE, DEVELOPER, OPEN, Principal, namespace_for
from scheduler.domain.errors import Unauthenticated

NAMESPACE_HEADER = "DTS-Namespace"


class Gate:
    """Admits requests to routes."""

    def __init__(self, settings: ApiSettings) -> None:
        self._development = settings.development

    async def admit(
        self,
        route: Route,
        params: Mapping[str, str],  # noqa: ARG002 - which run a run's own token is for
        headers: Mapping[bytes, bytes],
        scope: Scope,  # noqa: ARG002 - whose failures are counted
    ) -> tuple[Principal, str]:
        """Return who asks and about which namespace. Raises Unauthenticated or Forbidden."""
        if route.permission == OPEN:
            return ANONYMOUS, DEFAULT_NAMESPACE
        principal = self._identify(headers)
        principal.demand(route.permission)
        wanted = headers.get(b"dts-namespace")
        return principal, namespace_for(principal, None if wanted is None else wanted.decode("latin-1"))

    def _identify(self, headers: Mapping[bytes, bytes]) -> Principal:
        if self._development and b"authorization" not in headers:
            return DEVELOPER
        raise Unauthenticated("send an API key or a token: Authorization: Bearer ...")
