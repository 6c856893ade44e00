"""The line to PostgreSQL: how sessions are opened, and whether anybody answers at the other end.

When no packet comes through any more, nothing says so: a statement waits for its answer until its own patience is over,
and asyncpg then waits as long again for the answer to its request to cancel it. Where people wait, a `Lookout` asks a
trivial question every second on a session of its own. Once that is not answered either, twice, the line is *dead*:
everything under way on it fails at once and nothing more is sent, until somebody answers again.

Sessions of a pool may lie idle for hours. The kernel asks on each twice a minute, so that nobody in between forgets it,
and it is closed a minute after nobody answers any more: who uses it next need not find out.
"""

from __future__ import annotations

import socket
from typing import Any
from weakref import WeakSet

import anyio
import asyncpg

from scheduler.service import Backoff, Unavailable
from scheduler.telemetry import get_logger

_log = get_logger("store")

RETRIES = Backoff(base=0.5, cap=0.5)
"""How often a dead line is tried."""


_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Seconds of silence until the other end is asked, between questions, and how many of these may stay unanswered."""


class LineDead(ConnectionError):
    """Nobody answers at the other end."""


class Line:
    """Opens the sessions of one pool, and knows them."""

    def __init__(self) -> None:
        self.dead = False
        self.opened = 0
        """How many sessions have been opened so far."""
        self._sessions: WeakSet[Any] = WeakSet()
        self._dialling: set[anyio.CancelScope] = set()

    async def open(self, *args: Any, **settings: Any) -> Any:
        """Open a session, as asyncpg.connect does. Raises LineDead while the line is, or when it dies meanwhile."""
        if self.dead:
            raise LineDead("PostgreSQL does not answer")
        with anyio.CancelScope() as scope:
            self._dialling.add(scope)
            try:
                session = await asyncpg.connect(*args, **settings)
            finally:
                self._dialling.discard(scope)
            _keep_alive(session._transport.get_extra_info("socket"))  # noqa: SLF001 - asyncpg does not show it
            self._sessions.add(session)
            self.opened += 1
            return session
        raise LineDead("PostgreSQL does not answer")

    def cut(self) -> None:
        """Declare it dead: whoever waits for something on it learns so now."""
        self.dead = True
        for scope in self._dialling:
            scope.cancel()
        for session in list(self._sessions):
            session.terminate()
        self._sessions.clear()

    def mend(self) -> None:
        """Let sessions be opened again."""
        self.dead = False


def _keep_alive(connection: socket.socket) -> None:
    if connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE.items():
        if hasattr(socket, option):  # not everywhere, and not by the same name
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class Lookout:
    """Asks PostgreSQL every second whether it is there, for a loop with `RETRIES`; cuts the line when it is silent."""

    def __init__(self, line: Line, url: str, *, name: str, interval: float = 1.0, patience: float = 1.5) -> None:
        self._line = line
        self._url = url
        self._name = name
        self._interval = interval
        self._patience = patience
        self._session: Any | None = None

    async def step(self) -> float:
        """Ask, and once more on a new session. A refusal is an answer: whoever comes is refused as quickly."""
        if not await self._answers() and not await self._answers():
            if not self._line.dead:
                _log.warning("the database does not answer", patience=2 * self._patience)
                self._line.cut()
            raise Unavailable("PostgreSQL does not answer")
        if self._line.dead:
            _log.info("the database answers again")
            self._line.mend()
        return self._interval

    async def _answers(self) -> bool:
        with anyio.move_on_after(self._patience):
            try:
                if self._session is None:
                    self._session = await asyncpg.connect(self._url, server_settings={"application_name": self._name})
                await self._session.fetchval("SELECT 1")
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                self.close()
            return True
        self.close()
        return False

    def close(self) -> None:
        """Give the session up."""
        session, self._session = self._session, None
        if session is not None:
            session.terminate()
