"""Seeing that a statement of another session waits for a lock: how tests force an interleaving."""

from __future__ import annotations

from scheduler.store.database import Database


async def waits_for_a_lock(database: Database) -> bool:
    """Say whether any session of this database waits for a lock."""
    query = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
    )
    async with database.session() as connection:
        return bool(await connection.fetchval(query))
