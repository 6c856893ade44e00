"""Refusals in the audit log: counted in memory, written soon, and bounded, so that nobody can fill the disk with them.

Requests that are refused for the same reason to the same caller from the same address are one kind: its first request
of a minute is an entry, the others of that minute are one more, with their count. Of each minute at most `KINDS`
kinds are told apart; what goes beyond is counted under the actor `(others)`. Refusals change nothing, so there is no
transaction to be part of: what was counted in the last minute before a crash is lost.
"""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.types import Scope

from scheduler.api.routing import Route
from scheduler.domain.access import Principal
from scheduler.domain.clock import Clock
from scheduler.service import Wake
from scheduler.store.audit import Entry, write_audit
from scheduler.store.database import Database

KINDS: Final = 50
_WINDOW: Final = 60.0  # seconds
_OTHERS: Final = "(others)"


class _Kind(msgspec.Struct, frozen=True):
    namespace: str | None
    actor: str
    action: str
    status: int
    address: str | None


class Denials:
    """Gathers refusals; `wake` and `step` are its loop, which writes them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.wake = Wake()
        self._database = database
        self._monotonic = clock.monotonic
        self._waiting: dict[_Kind, tuple[str, int]] = {}  # kind → (id of its first request, how many)
        self._written: set[_Kind] = set()
        self._window_ends = 0.0

    def note(
        self, route: Route, scope: Scope, principal: Principal, namespace: str | None, status: int, request_id: str
    ) -> None:
        """Count one refusal."""
        client = scope.get("client")
        kind = _Kind(namespace, principal.name, route.operation, status, str(client[0]) if client else None)
        if kind not in self._waiting and len(self._waiting) + len(self._written) >= KINDS:
            kind = _Kind(None, _OTHERS, "(any)", status, None)
        first, count = self._waiting.get(kind, (request_id, 0))
        self._waiting[kind] = (first, count + 1)
        self.wake.set()

    async def step(self) -> float | None:
        """Write what was not written yet in this minute; what was already comes with the minute's end."""
        now = self._monotonic()
        if now >= self._window_ends:
            self._window_ends = now + _WINDOW
            self._written.clear()
        due = {kind: self._waiting[kind] for kind in self._waiting if kind not in self._written}
        if due:
            await write_audit(self._database, [_entry(kind, *counted) for kind, counted in due.items()])
            for kind, (_, count) in due.items():
                first, present = self._waiting.pop(kind)
                if present > count:  # came while this was written
                    self._waiting[kind] = (first, present - count)
            self._written |= due.keys()
        return self._window_ends - now if self._waiting else None


def _entry(kind: _Kind, request_id: str, count: int) -> Entry:
    return Entry(
        namespace=kind.namespace,
        actor=kind.actor,
        action=kind.action,
        object=None,
        request_id=request_id,
        status=kind.status,
        count=count,
        address=kind.address,
    )
