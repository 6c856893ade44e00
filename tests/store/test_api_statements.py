"""Every named statement means something to the database."""

from __future__ import annotations

from scheduler.store.database import Database
from scheduler.store.statements import STATEMENTS


async def test_every_statement_can_be_prepared(database: Database) -> None:
    broken = {}
    async with database.session() as connection:
        for name, text in STATEMENTS.items():
            try:
                await connection.prepare(text)
            except Exception as error:  # noqa: BLE001 - all of them are shown at once
                broken[name] = str(error)
    assert broken == {}
