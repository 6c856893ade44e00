"""The small things that processes share: the election lock, heartbeats, and which Redis this is."""

from __future__ import annotations

import secrets
from uuid import UUID

from scheduler.broker.errors import BrokerUnavailable
from scheduler.broker.keys import LOCK, MARKER, WORKERS
from scheduler.broker.library import Functions
from scheduler.broker.server import QUESTIONS, ServerInfo


class Coordination:
    """What is not about lanes. `installation` identifies the PostgreSQL database that this Redis accelerates."""

    def __init__(self, functions: Functions, installation: str) -> None:
        self._functions = functions
        self._installation = installation

    async def try_lock(self, holder: str, ttl: float) -> bool:
        """Take the election lock for `ttl` seconds if it is free; say whether it was."""
        (reply,) = await self._functions.call(("SET", LOCK, holder, b"NX", b"PX", int(ttl * 1000)))
        return reply is not None

    async def renew_lock(self, holder: str, ttl: float) -> bool:
        """Hold the lock for another `ttl` seconds from now; False if it is not (or no longer) the holder's."""
        return bool(await self._functions.one("renew", (LOCK,), holder, int(ttl * 1000)))

    async def release_lock(self, holder: str) -> bool:
        """Free the lock; False if it was not the holder's."""
        return bool(await self._functions.one("release", (LOCK,), holder))

    async def heartbeat(self, worker_id: UUID, ttl: float) -> None:
        """Show the worker as live for `ttl` seconds."""
        await self._functions.one("heartbeat", (WORKERS,), str(worker_id), int(ttl * 1000))

    async def live_workers(self) -> set[UUID]:
        """Return the workers whose heartbeat has not expired. Being absent proves nothing (PostgreSQL's lease does)."""
        return {UUID(reply.decode()) for reply in await self._functions.one("live_workers", (WORKERS,))}

    async def is_marked(self) -> bool:
        """Say whether the mark of `incarnation` stands; unlike that, this changes nothing."""
        (reply,) = await self._functions.call(("EXISTS", MARKER))
        return bool(reply)

    async def incarnation(self) -> str:
        """Return an identity of this Redis and its data. When it changes, every lane has to be rebuilt.

        It changes with a restart or failover of the server (which may have lost the newest writes), with a wipe, with
        another installation, and with another version of our functions. Raises BrokerUnfit if the server has become
        unfit while connected.
        """
        mark = self._functions.command("mark", (MARKER,), self._installation, secrets.token_hex(8))
        *facts, marker = await self._functions.call(*QUESTIONS, mark)
        server = ServerInfo.parse(facts)
        server.check()
        if not isinstance(marker, bytes):
            raise BrokerUnavailable(f"Redis gave a strange marker: {marker!r}")
        return f"{server.run_id}/{self._functions.name}/{marker.decode()}"
