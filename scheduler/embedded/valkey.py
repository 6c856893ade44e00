"""Valkey (or Redis) on a private directory and a unix socket.

It stores nothing: PostgreSQL is the truth, and what Valkey holds is made again from it.
"""

from __future__ import annotations

import signal
from pathlib import Path

from scheduler.embedded.account import Account, give
from scheduler.embedded.addresses import valkey_socket, valkey_url
from scheduler.embedded.leftovers import stop_leftover
from scheduler.embedded.process import Command

_TERM = ((signal.SIGTERM, 10.0),)


class ValkeyServer:
    """An embedded server. `prepare`, then run `command()` with `scheduler.embedded.process.serve`."""

    def __init__(
        self, program: Path, *, data: Path, sockets: Path, log: Path, account: Account | None, databases: int = 16
    ) -> None:
        self._program = program
        self._data = data
        self._sockets = sockets
        self._log = log
        self._account = account
        self._databases = databases

    def url(self, database: int = 0) -> str:
        """Return how to connect."""
        return valkey_url(self._sockets, database)

    async def prepare(self) -> None:
        """Make the directories, and stop a leftover server."""
        give(self._sockets, self._account)
        give(self._data, self._account)
        await stop_leftover(self._data / "valkey.pid", program="-server", directory=self._data, signals=_TERM)

    def command(self) -> Command:
        """Return how to run the server. It must never evict: a lost entry would look like one never written."""
        options = {
            "port": "0",
            "unixsocket": str(valkey_socket(self._sockets)),
            "unixsocketperm": "700",
            "dir": str(self._data),
            "pidfile": str(self._data / "valkey.pid"),
            "databases": str(self._databases),
            "appendonly": "no",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": "",
        }
        return Command(
            name="valkey",
            argv=[str(self._program), *(word for key, value in options.items() for word in (f"--{key}", value))],
            account=self._account,
            log=self._log,
            ready=b"Ready to accept connections",
            stop=_TERM,
        )
