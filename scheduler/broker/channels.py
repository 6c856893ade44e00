"""Wake-ups and control messages by pub/sub: one connection per process, however many listeners.

Messages are hints and may get lost; whoever needs certainty looks into PostgreSQL. After every (re)connection each
listener is therefore told of a gap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from scheduler.broker.errors import BrokerUnavailable
from scheduler.broker.keys import channel_key
from scheduler.broker.link import Command, Link, pack
from scheduler.health import Health
from scheduler.service import Backoff, Wake, run_loop

OnMessage = Callable[[bytes], None]
OnGap = Callable[[], None]

_CONNECT_DEADLINE: Final = 1.0  # seconds
_BACKOFF: Final = Backoff(base=0.05, cap=0.5)
"""It is this loop that finds out that Redis is back, for the whole process: one attempt in a quarter of a second."""
_READ_FOR: Final = 5.0  # seconds between pings; one that finds the last unanswered ends the connection


class Listener:
    """One registration: `on_message` and `on_gap` are called by the reading task, and must not block or raise."""

    def __init__(self, channel: str, on_message: OnMessage, on_gap: OnGap | None) -> None:
        self.key = channel_key(channel)
        self.on_message = on_message
        self.on_gap = on_gap
        self.active = anyio.Event()
        """Set once the server has confirmed the subscription: later messages arrive."""


class Subscriber:
    """Reads all subscribed channels for this process; `run` does the work and goes on for ever."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._listeners: dict[bytes, list[Listener]] = {}
        self._connection: AbstractConnection | None = None
        self._asked: set[bytes] = set()  # channels for which SUBSCRIBE was sent
        self._confirmed: set[bytes] = set()
        self._reading: anyio.CancelScope | None = None
        self._pinged = False
        self._generation = 0  # of the link, when the connection was made
        link.on_return(self._interrupt)

    def add(self, channel: str, on_message: OnMessage, on_gap: OnGap | None = None) -> Listener:
        """Register a listener; takes effect at once if the connection stands."""
        listener = Listener(channel, on_message, on_gap)
        self._listeners.setdefault(listener.key, []).append(listener)
        if listener.key in self._confirmed:
            listener.active.set()
        self._interrupt()
        return listener

    def remove(self, listener: Listener) -> None:
        """End the registration."""
        listeners = self._listeners.get(listener.key, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners:
            self._listeners.pop(listener.key, None)
            self._interrupt()

    async def run(self, health: Health) -> None:
        """Stay subscribed, reconnecting as often as it takes, until cancelled."""
        try:
            await run_loop("broker.subscriber", self._step, wake=Wake(), health=health, backoff=_BACKOFF)
        finally:
            await self._disconnect()

    async def _step(self) -> float:
        """Connect and subscribe; then, in later steps, read for a while, or until the set of channels has changed."""
        try:
            if self._generation != self._link.generation:
                await self._disconnect()
            connected = self._connection is not None
            connection = self._connection or await self._connect()
            await self._synchronise(connection)
            if not connected:
                return 0.0
            with anyio.move_on_after(_READ_FOR) as self._reading:
                while True:
                    self._take(await connection.read_response(disconnect_on_error=False))
                    self._pinged = False
            if self._reading.deadline <= anyio.current_time():
                await self._ping(connection)
        except (RedisError, OSError, BrokerUnavailable) as error:
            await self._disconnect()
            raise BrokerUnavailable(f"Redis is away: {str(error) or 'no answer in time'}") from error
        finally:
            self._reading = None
        return 0.0

    async def _connect(self) -> AbstractConnection:
        self._generation = self._link.generation
        with anyio.fail_after(_CONNECT_DEADLINE):
            self._connection = await self._link.open()
        self._link.answered()
        self._pinged = False
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._asked.clear()
        self._confirmed.clear()
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _synchronise(self, connection: AbstractConnection) -> None:
        wanted = set(self._listeners)
        commands: list[Command] = []
        if missing := wanted - self._asked:
            commands.append((b"SUBSCRIBE", *missing))
        if surplus := self._asked - wanted:
            commands.append((b"UNSUBSCRIBE", *surplus))
            self._confirmed -= surplus
        self._asked = wanted
        if commands:
            with anyio.fail_after(_CONNECT_DEADLINE):
                await connection.send_packed_command(pack(commands), check_health=False)

    async def _ping(self, connection: AbstractConnection) -> None:
        if self._pinged:
            raise TimeoutError("the ping was not answered")
        self._pinged = True
        with anyio.fail_after(_CONNECT_DEADLINE):
            await connection.send_packed_command(pack([(b"PING",)]), check_health=False)

    def _take(self, reply: object) -> None:
        if not isinstance(reply, list) or len(reply) != 3:
            return  # the answer to a ping
        kind, key, payload = reply
        if kind == b"subscribe" and key in self._asked:
            self._confirmed.add(key)
            for listener in tuple(self._listeners.get(key, ())):
                listener.active.set()
                if listener.on_gap is not None:
                    listener.on_gap()
        elif kind == b"message":
            for listener in tuple(self._listeners.get(key, ())):
                listener.on_message(payload)

    def _interrupt(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
