"""Answers that are kept under the key of their request, so that sending it again does nothing again.

A key is held by a row that is inserted before the request does anything and filled in last, all in one transaction: a
crash leaves both what was done and the answer, or neither.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from scheduler.domain.errors import Conflict
from scheduler.store.database import Executor

_PATIENCE_MS: Final = 5000

_headers = msgspec.json.Decoder(dict[str, str])


class RequestKey(msgspec.Struct, frozen=True, kw_only=True):
    """Who uses which key for what. `request` is its method and path, for people; `fingerprint` tells bodies apart."""

    namespace: str
    actor: str
    key: str
    request: str
    fingerprint: bytes


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered, and to which request."""

    request: str
    fingerprint: bytes
    status: int
    headers: dict[str, str]
    body: bytes
    created_at: datetime


async def hold(executor: Executor, wanted: RequestKey, ttl: float) -> KeptAnswer | None:
    """Hold a key for `ttl` seconds; return the answer that is kept under it instead, if there is one.

    Waits for another request that holds it just now. Raises Conflict (`in_flight`) if that takes too long.
    """
    await executor.execute("be_brief", str(_PATIENCE_MS))
    owner = (wanted.namespace, wanted.actor, wanted.key)
    try:
        held = await executor.fetchval("hold_request_key", *owner, wanted.request, wanted.fingerprint, ttl)
    except asyncpg.LockNotAvailableError:
        raise Conflict("in_flight", "a request with this key is still under way; ask again in a moment") from None
    if held is not None:
        return None
    row = await executor.fetchrow("kept_answer", *owner)
    if row is None or row["status"] is None:
        raise Conflict("in_flight", "the answer kept under this key has just expired; ask again")
    return KeptAnswer(**{**row, "headers": _headers.decode(row["headers"])})


async def keep(executor: Executor, key: RequestKey, status: int, headers: dict[str, str], body: bytes) -> None:
    """Keep the answer to the request that holds `key`."""
    encoded = msgspec.json.encode(headers)
    await executor.execute("keep_answer", key.namespace, key.actor, key.key, status, encoded, body)
