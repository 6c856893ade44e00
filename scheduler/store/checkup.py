"""What PostgreSQL says of itself, for `dts doctor`."""

from __future__ import annotations

from typing import Final

from scheduler.domain.checkup import PostgresFacts
from scheduler.domain.clock import Clock
from scheduler.store.database import Database

_SETTINGS: Final = (
    "autovacuum",
    "default_transaction_read_only",
    "fsync",
    "full_page_writes",
    "max_connections",
    "synchronous_commit",
)


async def examine(database: Database, clock: Clock) -> PostgresFacts:
    """Ask the server. Raises StoreUnavailable."""
    settings = await database.fetch("server_settings", list(_SETTINGS))
    before = clock.now().timestamp()
    state = await database.fetchrow("server_state")
    after = clock.now().timestamp()
    assert state is not None, "a query without FROM has one row"
    return PostgresFacts(
        version=state["version"],
        settings={row["name"]: row["setting"] for row in settings},
        standby=state["standby"],
        connections=state["connections"],
        apart=state["now"] - (before + after) / 2,
        doubt=(after - before) / 2,
    )
