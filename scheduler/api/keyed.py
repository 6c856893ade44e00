"""`Idempotency-Key`: a POST that is sent again with the same key gets the answer it got, and does nothing again.

The whole handler runs inside one transaction, with stores that work in it, and its answer is kept in the same
transaction: whatever a crash leaves, it is both or neither. Refusals change nothing, so none is kept; what Redis should
hear is said after the commit.

The field `idempotency_key` of a task is another thing: it belongs to the task, and goes with it.
"""

from __future__ import annotations

import re
from hashlib import sha256

from scheduler.api.auditing import entry_of
from scheduler.api.context import Context
from scheduler.api.problems import Refusal, malformed
from scheduler.api.requests import Request
from scheduler.api.responses import Reply
from scheduler.api.routing import Route
from scheduler.domain.errors import Conflict
from scheduler.store.audit import write_audit
from scheduler.store.request_keys import KeptAnswer, RequestKey, hold, keep

HEADER = b"idempotency-key"
_NOT_KEPT = 0  # in place of a status
_KEY = re.compile(r'"?([!#-~]{1,255})"?')


async def handle_once(api: Context, route: Route, request: Request, header: bytes) -> Reply:
    """Answer as before if this request was answered before, else handle it and keep the answer.

    Raises what the handler raises; Conflict (`in_flight`, `answer_not_kept`); a 422 Refusal if the key was used for
    another request. An answer that says `no-store` holds a secret that is shown once, and is not kept.
    """
    key = await _key_of(api, route, request, header)
    async with api.database.pinned() as pinned:
        if kept := await hold(pinned, key, api.settings.idempotency_ttl):
            return _again(kept, key)
        inner = api.within(pinned)
        reply = await route.handler(inner, request)
        assert isinstance(reply, Reply), "a POST is answered in one piece"
        if route.audit == "around":
            await write_audit(pinned, [entry_of(route, request, reply)])
        headers = {name.decode(): value.decode("latin-1") for name, value in reply.raw_headers}
        if headers.get("cache-control") == "no-store":
            await keep(pinned, key, _NOT_KEPT, {}, b"")
        else:
            await keep(pinned, key, reply.status_code, headers, bytes(reply.body))
    inner.offers.release()
    return reply


async def _key_of(api: Context, route: Route, request: Request, header: bytes) -> RequestKey:
    match = _KEY.fullmatch(header.decode("latin-1").strip())
    if match is None:
        raise malformed("Idempotency-Key takes 1 to 255 visible ASCII characters, for example a UUID")
    scope, path = request.scope, request.path
    body = await request.body(api.settings.max_body, api.settings.body_timeout)
    # A plain hash of a secret would let whoever reads it try out what the secret may be.
    keys = api.settings.master_keys if route.confidential else None
    digest = sha256(keys.fingerprint_key if keys is not None else b"")
    for part in (scope["method"].encode(), path, scope["query_string"], request.media_type.encode(), body):
        digest.update(b"%d:" % len(part) + part)
    return RequestKey(
        namespace=request.namespace,
        actor=request.actor,
        key=match[1],
        request=f"{scope['method']} {path.decode('latin-1')}"[:200],
        fingerprint=digest.digest(),
    )


def _again(kept: KeptAnswer, key: RequestKey) -> Reply:
    if kept.fingerprint != key.fingerprint:
        when = f"{kept.created_at:%Y-%m-%dT%H:%M:%SZ}"
        what = "with another body" if kept.request == key.request else f"for {key.request}"
        detail = f"the key was used at {when} for {kept.request}, and now {what}: each request needs one of its own"
        raise Refusal(422, "invalid", detail, code="idempotency_key_reused")
    if kept.status == _NOT_KEPT:
        raise Conflict("answer_not_kept", "this was done already; its answer held a secret, and is not kept")
    reply = Reply(kept.body, kept.status, None)
    headers = [(name.encode(), value.encode("latin-1")) for name, value in kept.headers.items()]
    reply.raw_headers = [*headers, (b"idempotency-replayed", b"true")]
    return reply
