"""A lookout that asks often and loses patience soon, for tests that cut the line to PostgreSQL."""

from __future__ import annotations

from scheduler.store.database import Database
from scheduler.store.line import Lookout


def hurry_lookout(database: Database, url: str) -> None:
    """Replace the database's lookout by one that takes a second or so to find out that nobody answers."""
    database.lookout = Lookout(database.lookout._line, url, name="lookout", interval=0.05, patience=1.0)
