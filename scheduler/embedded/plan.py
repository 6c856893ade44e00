"""Which servers to run, as whom and where: decided before anything is started."""

from __future__ import annotations

from pathlib import Path

from scheduler.embedded.account import Account, server_account
from scheduler.embedded.addresses import postgres_url, valkey_url
from scheduler.embedded.binaries import PostgresPrograms, find_postgres, find_valkey
from scheduler.embedded.datadir import DataDir


class Plan:
    """What will be started: known without starting anything. A server whose URL is given is not ours to run.

    Raises MissingBinary or NoAccount. Addresses are valid from the start on, the servers answer later.
    """

    def __init__(self, data: DataDir, *, task_user: str, database_url: str, redis_url: str) -> None:
        self.data = data
        self.account: Account | None = None
        self.sockets: Path | None = None
        self.postgres: PostgresPrograms | None = None
        self.valkey: Path | None = None
        if not database_url or not redis_url:
            self.account = server_account(task_user=task_user, home=data.path)
            self.sockets = data.sockets(self.account)
        if not database_url:
            assert self.sockets is not None
            self.postgres = find_postgres(data.postgres)
            database_url = postgres_url(self.sockets)
        if not redis_url:
            assert self.sockets is not None
            self.valkey = find_valkey()
            redis_url = valkey_url(self.sockets)
        self.database_url = database_url
        self.redis_url = redis_url
