"""Which namespaces there are and what each may have, held in memory and read again every few seconds."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from scheduler.broker import Broker, BrokerUnavailable
from scheduler.domain.access import DEFAULT_NAMESPACE
from scheduler.domain.errors import Conflict, NotFound
from scheduler.service import Wake
from scheduler.store.namespaces import Namespaces
from scheduler.wire.access import Namespace, Quotas

CHANNEL = "namespaces"
"""Says that a namespace was made, changed or deleted."""

_READ_AGAIN = 5.0  # seconds
_UNBOUNDED = Quotas()


class Tenancy:
    """The namespaces of the installation. `wake` and `step` are its loop."""

    def __init__(self, namespaces: Namespaces, broker: Broker) -> None:
        self.wake = Wake()
        self._namespaces = namespaces
        self._broker = broker
        self._known: dict[str, Namespace] = {}
        broker.listen(CHANNEL, lambda _: self.wake.set(), self.wake.set)

    @property
    def known(self) -> Mapping[str, Namespace]:
        """What there was a moment ago."""
        return self._known

    def quotas(self, name: str) -> Quotas:
        """Return what a namespace may have."""
        return self._known.get(name, _UNBOUNDED)

    async def demand(self, name: str) -> None:
        """Raise NotFound if there is no such namespace; asks the database about one that is not known yet."""
        if name in self._known or name == DEFAULT_NAMESPACE:
            return
        await self.step()
        if name not in self._known:
            raise NotFound("namespace", name[:63])

    async def demand_room(self, namespaces: Namespaces, name: str, recurring: int) -> None:
        """Raise Conflict if the namespace may not have so many more recurring tasks."""
        most = self.quotas(name).max_tasks
        if recurring and most is not None and await namespaces.recurring(name, most) + recurring > most:
            raise Conflict("quota", f"the namespace {name} may have {most} recurring tasks")

    async def changed(self) -> None:
        """Read them again, and tell every other process to; without Redis they do it by themselves, a little later."""
        await self.step()
        with suppress(BrokerUnavailable):
            await self._broker.publish(CHANNEL)

    async def step(self) -> float | None:
        """Read every namespace."""
        self._known = {namespace.name: namespace for namespace in await self._namespaces.all()}
        return _READ_AGAIN
