"""The ASGI application: one pass from request to answer, with nothing between that is not needed.

Order: which route → who asks, and may that one → its handler; any exception becomes a problem document; every answer
bears the request id and is counted under its route's template, never under the path that was asked for.
"""

from __future__ import annotations

import os
import re
from functools import partial
from itertools import count

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from scheduler.api.auditing import handle_logged
from scheduler.api.coding import pack
from scheduler.api.context import Context
from scheduler.api.door import Door
from scheduler.api.keyed import HEADER, handle_once
from scheduler.api.problems import reply_to
from scheduler.api.requests import Request
from scheduler.api.routes import ROUTES
from scheduler.api.routing import Route, Router
from scheduler.api.throttle import Throttle
from scheduler.domain.access import ANONYMOUS, OPEN
from scheduler.store.database import despite_collisions
from scheduler.telemetry import get_logger, mark

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_UNROUTED = "(none)"
_log = get_logger("api")


class App:
    """Answers HTTP requests over a Context."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._gate = context.gate
        # Where no credentials are asked for, what kind of request it is must show that it comes from this machine.
        self._door = Door() if context.settings.development else None
        self._throttle = Throttle(context.clock, context.settings.rate_limit, context.settings.rate_burst)
        self._router = Router(ROUTES)
        self._ids = (f"{os.urandom(4).hex()}-{n:x}".encode() for n in count(1))
        self._monotonic = context.clock.monotonic
        self._requests = context.metrics.counter(
            "dts_http_requests_total", "Requests answered.", "method", "route", "status"
        )
        self._seconds = context.metrics.histogram(
            "dts_http_request_seconds", "From the request's head to the last byte of its answer.", "method", "route"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event, as ASGI has it."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = self._monotonic()
        template, response = await self._response(scope, receive)
        await self._answer(response, scope, receive, send)
        method = scope["method"] if template is not _UNROUTED else "any"
        self._requests.labels(method, template, response.status_code).inc()
        self._seconds.labels(method, template).observe(self._monotonic() - started)

    async def _response(self, scope: Scope, receive: Receive) -> tuple[str, Response]:
        """Return the route's template and the answer; an open stream keeps nothing else of its request."""
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id")
        request_id = given if given is not None and _REQUEST_ID.fullmatch(given) else next(self._ids)
        mark(request_id=request_id.decode())
        template = _UNROUTED
        route: Route | None = None
        principal, namespace = ANONYMOUS, ""
        try:
            if self._door is not None:
                self._door.check(headers)
            route, params = self._router.find(scope)
            template = route.path
            principal = await self._gate.identify(route, headers, scope)
            namespace = await self._gate.admit(principal, route, params, headers)
            if route.permission != OPEN:
                self._throttle.take(namespace, principal.name)
            request = Request(
                scope,
                receive,
                headers,
                params,
                request_id=request_id.decode(),
                namespace=namespace,
                principal=principal,
            )
            if route.conditional and self._context.settings.require_if_match:
                request.demand_condition()
            response = await despite_collisions(partial(self._handle, route, request))
        except Exception as error:  # noqa: BLE001 - every error has an answer
            response = reply_to(error, request_id.decode())
            if route is not None and response.status_code in (401, 403):
                self._context.denials.note(
                    route, scope, principal, namespace or None, response.status_code, request_id.decode()
                )
            if response.status_code == 500:
                _log.error("request failed", route=template, exc_info=error)
        response.raw_headers.append((b"x-request-id", request_id))
        await pack(response, headers)
        return template, response

    async def _handle(self, route: Route, request: Request) -> Response:
        key = request.headers.get(HEADER)
        if key is not None and route.method == "POST":
            return await handle_once(self._context, route, request, key)
        if route.mutates and route.audit == "around":
            return await handle_logged(self._context, route, request)
        return await route.handler(self._context, request)

    @staticmethod
    async def _answer(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await send(_head(response))
            await send({"type": "http.response.body", "body": b""})
        else:
            await response(scope, receive, send)


def _head(response: Response) -> Message:
    return {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}


async def _lifespan(receive: Receive, send: Send) -> None:
    """Say yes to both: what we own is opened and closed by the role, around the server."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
