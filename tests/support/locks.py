"""Seeing that a statement of another session waits for a lock: how tests force an interleaving."""

from __future__ import annotations

from scheduler.store.database import Database


async def waiting_for_locks(database: Database) -> int:
    """Return how many sessions of this database wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with database.session() as connection:
        return int(await connection.fetchval(query))
