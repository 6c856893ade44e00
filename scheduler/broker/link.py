"""Connections to Redis, and the one way to talk through them: send some commands at once, read their replies.

redis-py's client is left out: its connections are used directly, which halves the cost of a call, and nothing is ever
sent twice. A call has one deadline, connecting included; whatever interrupts it costs its connection, so replies cannot
get mixed up. A call that blocks has a connection to itself, like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import anyio
import hiredis
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MasterDownError, ReadOnlyError, RedisError, ResponseError

from scheduler.broker.circuit import Circuit
from scheduler.broker.errors import BrokerUnavailable
from scheduler.broker.server import QUESTIONS, ServerInfo
from scheduler.domain.clock import Clock

Arg = bytes | str | int
Command = tuple[Arg, ...]
Reply = Any  # bytes, int, None, a list of replies, or a ResponseError

_DEADLINE: Final = 1.0  # seconds for one call
_PROBE_DEADLINE: Final = 0.5  # the same, for the caller that looks whether the server is back
_BLOCKING_SLACK: Final = (
    0.4  # beyond its patience, for a call that waits at the server: nobody notices a silence sooner
)
_MAX_IDLE: Final = 16
_DEMOTED: Final = (ReadOnlyError, MasterDownError)
"""What a server answers that has become a replica."""


class Link:
    """Talks to one server. Never connects before the first call, so a process starts without Redis too."""

    def __init__(self, url: str, *, name: str, clock: Clock) -> None:
        options: dict[str, Any] = dict(parse_url(url))  # ValueError: the caller's configuration is wrong
        self._connection_class: type[AbstractConnection] = options.pop("connection_class", Connection)
        if issubclass(self._connection_class, Connection):
            options.setdefault("socket_keepalive", True)
        # The deadline of a call bounds its socket too, so redis-py's own timeouts (a task per write) are off.
        options |= {"retry": Retry(NoBackoff(), 0), "socket_timeout": None, "socket_connect_timeout": None}
        options |= {"protocol": 2, "client_name": name, "health_check_interval": 0}
        self._options = options
        self._circuit = Circuit(clock)
        self._idle: list[AbstractConnection] = []
        self.generation = 0
        """Grows when the server is found to have become a replica: connections from before lead nowhere any more."""
        self._closed = False
        self._on_return: list[Callable[[], None]] = []

    @property
    def healthy(self) -> bool:
        """Say whether the last call was answered; True before the first one."""
        return self._circuit.closed

    async def call(self, *commands: Command, patience: float = 0.0) -> list[Reply]:
        """Send the commands together and return their replies; an error reply stands in the list as ResponseError.

        `patience` is how many seconds longer than usual the server may take (a blocking command). Raises
        BrokerUnavailable: at once while the server is known to be away.
        """
        if patience and not self._circuit.closed:
            await self.call(("PING",))  # a blocking command would be a slow probe
        if self._closed or not self._circuit.admit():
            raise BrokerUnavailable("Redis is away")
        deadline = _DEADLINE if self._circuit.closed else _PROBE_DEADLINE
        if patience:
            deadline = patience + _BLOCKING_SLACK
        try:
            with anyio.fail_after(deadline):
                replies = await self._exchange(commands)
        except (RedisError, OSError, BrokerUnavailable) as error:  # TimeoutError is an OSError
            self._circuit.failed()
            await self._drop_idle()
            if isinstance(error, BrokerUnavailable):
                raise
            raise BrokerUnavailable(f"Redis is away: {str(error) or 'no answer in time'}") from error
        except BaseException:
            self._circuit.abandoned()
            raise
        self.answered()
        return replies

    def answered(self) -> None:
        """Take note that the server is there; `call` and whoever has a connection of `open` say so."""
        if self._circuit.worked():
            for tell in tuple(self._on_return):
                tell()

    def on_return(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Call `tell()` when the server answers after it was away; return what ends this."""
        self._on_return.append(tell)
        return lambda: self._on_return.remove(tell)

    async def open(self) -> AbstractConnection:
        """Return a new connection to a server that has been found fit. The caller disconnects it."""
        connection = self._connection_class(**self._options)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            ServerInfo.parse(await _talk(connection, QUESTIONS)).check()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def close(self) -> None:
        """Close every connection that is not in use; those in use close when their call ends."""
        self._closed = True
        await self._drop_idle()

    async def _exchange(self, commands: Sequence[Command]) -> list[Reply]:
        connection = await self._checkout()
        try:
            replies = await _talk(connection, commands)
            for reply in replies:
                if isinstance(reply, _DEMOTED):
                    self.generation += 1
                    raise BrokerUnavailable(f"Redis has become a replica: {reply}")
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        if self._closed or len(self._idle) >= _MAX_IDLE:
            await connection.disconnect(nowait=True)
        else:
            self._idle.append(connection)
        return replies

    async def _checkout(self) -> AbstractConnection:
        while self._idle:
            connection = self._idle.pop()
            if not await connection.can_read():
                return connection
            await connection.disconnect(nowait=True)  # closed by the server, most likely by a restart
        return await self.open()

    async def _drop_idle(self) -> None:
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)


def pack(commands: Sequence[Command]) -> bytes:
    """Return the commands as they go over the wire."""
    packed: list[bytes] = [
        hiredis.pack_command(command)  # type: ignore[arg-type]  # declared as a tuple of exactly one
        for command in commands
    ]
    return b"".join(packed)


async def _talk(connection: AbstractConnection, commands: Sequence[Command]) -> list[Reply]:
    await connection.send_packed_command(pack(commands), check_health=False)
    replies: list[Reply] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(error)
    return replies
