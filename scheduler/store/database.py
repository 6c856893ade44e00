"""The connection pool, and what "the database is away" means.

Nobody leaves a session changed, so returning a connection to the pool costs no round trip. Every statement we run is
meant for an index and a nested loop, with batches as its outer side; the planner is told so, because a plan made while
a table was empty (a sequential scan, a hash join over all history) would otherwise be kept while the table grows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self, TypeVar

import anyio
import asyncpg

from scheduler.service import Unavailable
from scheduler.store.line import Line, Lookout
from scheduler.store.statements import STATEMENTS

_SETTINGS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "jit": "off",
    "timezone": "UTC",
    # Whoever is stopped in a transaction, or gone without a word, keeps what he has locked from all others.
    "idle_in_transaction_session_timeout": "15000",
}
_TRIES: Final = 4
_GRACE = 5.0  # seconds that the answer to a statement may take longer than the statement

_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the connection broke between the two messages of one statement
    asyncpg.OperatorInterventionError,  # the server is starting, stopping, or ended our session
    asyncpg.InsufficientResourcesError,  # no disk, no memory, no connections left: somebody has to make room
    asyncpg.InvalidCatalogNameError,  # the database is not created yet
    asyncpg.InvalidAuthorizationSpecificationError,  # nor the login, or it is refused for now: its password changes
    asyncpg.ReadOnlySQLTransactionError,  # a failover has not come to its end, or the disk is full
)
_MISUSE = (asyncpg.exceptions.DataError, asyncpg.exceptions.QueryCanceledError)

RETRYABLE = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
"""Errors after which the same statement may simply be run again: nothing of it was applied."""

T = TypeVar("T")


async def despite_collisions(act: Callable[[], Awaitable[T]]) -> T:
    """Do something of one transaction; again if the database took that back because it collided with another's.

    Raises the last of RETRYABLE if it has done so four times.
    """
    for _ in range(_TRIES - 1):
        try:
            return await act()
        except RETRYABLE:
            continue
    return await act()


class StoreUnavailable(Unavailable):
    """The database cannot be reached, or the connection broke: whether the statement was applied is not known."""


PASSING = (StoreUnavailable, asyncpg.QueryCanceledError, *RETRYABLE)
"""Errors that pass by themselves, for who can wait and then runs the statement again. A statement is cancelled when it
has taken too long: most likely it waited for somebody's lock."""


def _is_away(error: BaseException) -> bool:
    return isinstance(error, _AWAY) and not isinstance(error, _MISUSE)


class _Connection(asyncpg.Connection):
    def get_reset_query(self) -> str:
        """Return nothing: whoever changes a session, as migrations do, changes it back."""
        return ""


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda text: b"\x01" + text,
        decoder=lambda data: bytes(data[1:]),
    )


async def _demand_settings(pool: Any, asked: Mapping[str, str]) -> None:
    """Raise StoreUnavailable unless sessions are set as asked: plans, patience and the leader's term rest on it."""
    found = {row["name"]: row["setting"] for row in await pool.fetch(STATEMENTS["session_settings"], list(asked))}
    lost = sorted(name for name, value in asked.items() if name != "application_name" and found[name] != value)
    if lost:
        raise StoreUnavailable(
            f"sessions are opened without what was asked of them ({', '.join(lost)}): a pooler in between drops it;"
            " connect to PostgreSQL itself"
        )


class Executor:
    """Runs named statements on one connection of `pool`, or on whichever is free.

    `timeout` is how many seconds the answer to each may take, if that is not what the pool says.
    """

    def __init__(self, target: Any, pool: Any, timeout: float | None = None) -> None:
        self.target = target
        self.pool = pool
        self.timeout = timeout

    async def fetch(self, name: str, *args: object) -> list[Any]:
        """Return every row. Raises StoreUnavailable when the database is away."""
        return await self._run("fetch", name, args)  # type: ignore[no-any-return]

    async def fetchrow(self, name: str, *args: object) -> Any | None:
        """Return the first row or None. Raises StoreUnavailable when the database is away."""
        return await self._run("fetchrow", name, args)

    async def fetchval(self, name: str, *args: object) -> Any:
        """Return the first column of the first row or None. Raises StoreUnavailable when the database is away."""
        return await self._run("fetchval", name, args)

    async def execute(self, name: str, *args: object) -> str:
        """Return the command tag (`UPDATE 3`). Raises StoreUnavailable when the database is away."""
        return await self._run("execute", name, args)  # type: ignore[no-any-return]

    async def _run(self, method: str, name: str, args: tuple[object, ...]) -> Any:
        try:
            return await getattr(self.target, method)(STATEMENTS[name], *args, timeout=self.timeout)
        except Exception as error:
            await self._leave_read_only(error)
            if _is_away(error):
                raise StoreUnavailable(f"{name}: {error}") from error
            raise

    async def _leave_read_only(self, error: BaseException) -> None:
        """Have the pool open new sessions: a server that was left behind as a standby never takes writes again."""
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            await self.pool.expire_connections()


def _usable(connection: Any | None) -> bool:
    try:
        return connection is not None and not connection.is_closed()
    except asyncpg.InterfaceError:  # it broke while nobody used it, and the pool has taken it back
        return False


class _KeptConnection(Executor):
    """Runs statements on a connection that it keeps: taking one and giving it back costs half as much as a statement.

    It is taken from the pool with the first statement, and given back when one fails, so that the pool replaces it if
    it is broken. A statement that comes while another is under way goes to whichever connection is free.
    """

    def __init__(self, pool: Any) -> None:
        super().__init__(pool, pool)
        self._connection: Any | None = None
        self._busy = False

    async def _run(self, method: str, name: str, args: tuple[object, ...]) -> Any:
        if self._busy:
            return await super()._run(method, name, args)
        self._busy = True
        try:
            if not _usable(self._connection):
                await self.give_back()
                self._connection = await self.pool.acquire()
            return await getattr(self._connection, method)(STATEMENTS[name], *args)
        except BaseException as error:
            await self._leave_read_only(error)
            await self.give_back()
            if _is_away(error):
                raise StoreUnavailable(f"{name}: {error}") from error
            raise
        finally:
            self._busy = False

    async def give_back(self) -> None:
        """Let the pool have the connection again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self.pool.release(connection)


class Database(Executor):
    """A pool of connections to one PostgreSQL database."""

    def __init__(self, pool: Any, line: Line, lookout: Lookout) -> None:
        super().__init__(pool, pool)
        self._line = line
        self.lookout = lookout
        """Finds out that nobody answers, for roles that must not wait for long: these run its step in a loop."""

    @property
    def sessions(self) -> int:
        """How many sessions have been opened so far.

        What was written before the last of them may be gone: that one may be with a standby that had not heard of it,
        or with a backup.
        """
        return self._line.opened

    @asynccontextmanager
    async def kept_connection(self) -> AsyncIterator[Executor]:
        """Keep a connection for one loop's statements. Nothing may be sent through it after leaving."""
        kept = _KeptConnection(self.pool)
        try:
            yield kept
        finally:
            await kept.give_back()

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        name: str,
        min_size: int = 1,
        max_size: int = 8,
        statement_timeout: float = 30.0,
        settings: Mapping[str, str] | None = None,
    ) -> Self:
        """Open the pool; `name` shows up in pg_stat_activity, times are in seconds, `settings` are for every session.

        Raises StoreUnavailable when the server cannot be reached, or its sessions are not set as they were asked to be:
        roles wait for it and try again.
        """
        session = {
            **_SETTINGS,
            "application_name": name,
            "statement_timeout": str(int(statement_timeout * 1000)),
            **(settings or {}),
        }
        line = Line()
        pool = None
        try:
            pool = await asyncpg.create_pool(
                url,
                connect=line.open,
                min_size=min_size,
                max_size=max_size,
                max_inactive_connection_lifetime=0,
                connection_class=_Connection,
                init=_prepare,
                server_settings=session,
                timeout=5,
                command_timeout=statement_timeout + _GRACE,
            )
            await _demand_settings(pool, session)
        except Exception as error:
            if pool is not None:
                pool.terminate()
            if _is_away(error):
                raise StoreUnavailable(f"cannot connect: {error}") from error
            raise
        return cls(pool, line, Lookout(line, url, name=f"{name}-lookout"))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Executor]:
        """Hold one connection in a transaction: committed on leaving, rolled back on an exception."""
        try:
            async with self.pool.acquire() as connection, connection.transaction():
                yield Executor(connection, self.pool)
        except StoreUnavailable:
            raise
        except Exception as error:
            if _is_away(error):
                raise StoreUnavailable(str(error)) from error
            raise

    @asynccontextmanager
    async def patient(self, seconds: float) -> AsyncIterator[Executor]:
        """Hold a transaction each of whose statements may take so long, for what nobody waits for."""
        async with self.transaction() as executor:
            await executor.target.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
            yield Executor(executor.target, executor.pool, seconds + _GRACE)

    @asynccontextmanager
    async def pinned(self) -> AsyncIterator[Pinned]:
        """Hold one connection in a transaction that can stand in the place of this database.

        Whatever was put off by `once_committed` is done after the commit.
        """
        async with self.transaction() as executor:
            pinned = Pinned(self, executor)
            yield pinned
        await pinned.do_later()

    async def once_committed(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work`: at once, for here every transaction that was left is committed."""
        await work()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        """Hold one raw connection, for what no statement covers (COPY, LISTEN, migrations)."""
        try:
            async with self.pool.acquire() as connection:
                yield connection
        except StoreUnavailable:
            raise
        except Exception as error:
            if _is_away(error):
                raise StoreUnavailable(str(error)) from error
            raise

    async def close(self, *, patience: float = 2.0) -> None:
        """Close politely, waiting up to `patience` seconds for statements under way, then cut them."""
        self.lookout.close()
        with anyio.move_on_after(patience, shield=True):
            await self.pool.close()
            return
        self.pool.terminate()


class Pinned(Database):
    """One open transaction in the place of a database: what is done through it is committed together, or not at all.

    Its own transactions are savepoints. Used by one task at a time.
    """

    def __init__(self, database: Database, executor: Executor) -> None:
        Executor.__init__(self, executor.target, executor.pool)
        self._database = database
        self._later: list[Callable[[], Awaitable[None]]] = []

    @property
    def sessions(self) -> int:
        """How many sessions the database has opened so far."""
        return self._database.sessions

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Executor]:
        """Hold a savepoint: rolled back on an exception."""
        async with self.target.transaction():
            yield self

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        """Hold the connection of the transaction."""
        yield self.target

    async def once_committed(self, work: Callable[[], Awaitable[None]]) -> None:
        """Put `work` off until the transaction is committed."""
        self._later.append(work)

    async def do_later(self) -> None:
        """Do what was put off."""
        for work in self._later:
            await work()

    async def close(self, *, patience: float = 2.0) -> None:
        """Do nothing: the connection belongs to the pool."""
