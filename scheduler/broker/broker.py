"""The one object through which every role talks to Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Self
from uuid import UUID

from scheduler.broker.channels import Listener, OnGap, OnMessage, Subscriber
from scheduler.broker.coordination import Coordination
from scheduler.broker.dispatch import Delivery, DispatchStreams
from scheduler.broker.keys import channel_key
from scheduler.broker.lanes import WINDOW, Lanes, LaneStats
from scheduler.broker.library import Functions
from scheduler.broker.link import Link
from scheduler.domain.clock import Clock
from scheduler.domain.run import Queued
from scheduler.health import Health


class Broker:
    """Ready sets, dispatch streams, election lock, heartbeats, messages: each a few commands in one round trip.

    Every method that talks to Redis raises BrokerUnavailable, quickly, when Redis is away, refuses, or is unfit
    (BrokerUnfit, a subclass), and works again by itself once it is back: streams, groups and functions that are missing
    are created. Nothing here is the truth, so no caller has to do more than go on without. Durations are seconds.

    Lanes (see `Lanes`)
        push(runs) → lane: open · is_open(lanes) → set · mark_open(lane) · mark_closed(lane) · stats(lanes)
        · clear(lane)
    Offers to workers (see `DispatchStreams`)
        read(lanes, worker_id, free, block, settle=…) → deliveries · settle(deliveries)
        · give_back(deliveries, worker_id) · reclaim_idle(lanes, older_than) · forget_worker(lanes, worker_id)
    Coordination (see `Coordination`)
        try_lock(holder, ttl) · renew_lock(holder, ttl) · release_lock(holder) · heartbeat(worker_id, ttl)
        · live_workers() · is_marked() · incarnation()
    Messages
        publish(channel, payload) · listen(channel, on_message): who listens needs `run` in the background
    """

    def __init__(self, link: Link, *, installation: str, window: int) -> None:
        self._link = link
        functions = Functions(link)
        self._functions = functions
        self.lanes = Lanes(functions, window)
        self.streams = DispatchStreams(link, functions)
        self.coordination = Coordination(functions, installation)
        self.subscriber = Subscriber(link)

    @classmethod
    def connect(cls, url: str, *, installation: str, name: str, clock: Clock, window: int = WINDOW) -> Broker:
        """Return a broker for `redis://`, `rediss://` or `unix://`; connections are made when they are needed.

        `installation` identifies the PostgreSQL database, `name` this process (shown by CLIENT LIST; no spaces).
        Raises ValueError for a URL that is none.
        """
        return cls(Link(url, name=name, clock=clock), installation=installation, window=window)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; calls from now on raise BrokerUnavailable."""
        await self._link.close()

    @property
    def available(self) -> bool:
        """Say whether the last call was answered; True before the first one."""
        return self._link.healthy

    async def ping(self) -> None:
        """Do nothing, over there. Raises BrokerUnavailable."""
        await self._functions.call(("PING",))

    def on_return(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Call `tell()` whenever Redis answers again after it was away; return what ends this.

        It may not block or raise. While `run` is running, a return is found out within half a second.
        """
        return self._link.on_return(tell)

    # --- lanes

    async def push(self, runs: Sequence[Queued]) -> dict[str, bool]:
        """Add queued runs to their lanes' ready sets (absent ones, or those with a newer seq) and offer what fits.

        Return, for each lane, whether the API may go on pushing to it by itself.
        """
        return await self.lanes.push(runs)

    async def is_open(self, lanes: Iterable[str]) -> set[str]:
        """Return those of the lanes that the API may push new runs to by itself."""
        return await self.lanes.is_open(lanes)

    async def mark_open(self, lane: str) -> None:
        """Let the API push to the lane by itself, until one of its windows is full."""
        await self.lanes.mark_open(lane)

    async def mark_closed(self, lane: str) -> None:
        """Make new runs of the lane wait for the leader."""
        await self.lanes.mark_closed(lane)

    async def stats(self, lanes: Iterable[str]) -> dict[str, LaneStats]:
        """Return how many runs each lane holds ready, and whether the API may push to it by itself."""
        return await self.lanes.stats(lanes)

    async def clear(self, lane: str) -> None:
        """Forget the lane's runs and offers, before it is rebuilt from PostgreSQL."""
        await self.lanes.clear(lane)

    # --- offers to workers

    async def read(
        self, lanes: Sequence[str], worker_id: UUID, free: int, block: float, *, settle: Sequence[Delivery] = ()
    ) -> list[Delivery]:
        """Offer `free` ≥ 1 slots and wait up to `block` seconds for at most so many runs to claim.

        `settle` saves a round trip: those deliveries are done with. One read at a time per worker.
        """
        return await self.streams.read(lanes, worker_id, free, block, settle)

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Be done with deliveries, claimed or not."""
        await self.streams.settle(deliveries)

    async def give_back(self, deliveries: Sequence[Delivery], worker_id: UUID) -> None:
        """Return deliveries that the worker cannot take to their old places."""
        await self.streams.give_back(deliveries, worker_id)

    async def reclaim_idle(self, lanes: Iterable[str], older_than: float) -> int:
        """Drop deliveries that nobody has settled for so long; the reconciler brings their runs again."""
        return await self.streams.reclaim_idle(lanes, older_than)

    async def forget_worker(self, lanes: Iterable[str], worker_id: UUID) -> int:
        """Remove what a dead worker leaves behind in the lanes."""
        return await self.streams.forget_worker(lanes, worker_id)

    # --- coordination

    async def try_lock(self, holder: str, ttl: float) -> bool:
        """Take the election lock if it is free."""
        return await self.coordination.try_lock(holder, ttl)

    async def renew_lock(self, holder: str, ttl: float) -> bool:
        """Keep the election lock; False if it is somebody else's, or nobody's."""
        return await self.coordination.renew_lock(holder, ttl)

    async def release_lock(self, holder: str) -> bool:
        """Free the election lock; False if it was not the holder's."""
        return await self.coordination.release_lock(holder)

    async def heartbeat(self, worker_id: UUID, ttl: float) -> None:
        """Show the worker as live for so long."""
        await self.coordination.heartbeat(worker_id, ttl)

    async def live_workers(self) -> set[UUID]:
        """Return the workers whose heartbeat stands."""
        return await self.coordination.live_workers()

    async def is_marked(self) -> bool:
        """Say whether Redis still holds the mark that `incarnation` left: if not, everything was wiped."""
        return await self.coordination.is_marked()

    async def incarnation(self) -> str:
        """Return an identity of this Redis and its data; when it changes, clear and rebuild every lane."""
        return await self.coordination.incarnation()

    # --- messages

    async def run(self, health: Health) -> None:
        """Receive messages until cancelled: `service.start("broker", broker.run, health)`."""
        await self.subscriber.run(health)

    async def publish(self, channel: str, payload: bytes = b"") -> None:
        """Send a message to whoever listens to the channel now."""
        await self._functions.call(("PUBLISH", channel_key(channel), payload))

    def listen(self, channel: str, on_message: OnMessage, on_gap: OnGap | None = None) -> Listener:
        """Call `on_message(payload)` for each message, and `on_gap()` after each (re)connection: some may be missing.

        Neither may block or raise. For a wake-up: `listen("wake:control", lambda _: wake.set(), wake.set)`.
        """
        return self.subscriber.add(channel, on_message, on_gap)

    def unlisten(self, listener: Listener) -> None:
        """End what `listen` began."""
        self.subscriber.remove(listener)
