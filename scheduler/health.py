"""What each part of a process last said of itself; shown by `/health/deep` and `dts top`."""

from __future__ import annotations

from datetime import datetime

import msgspec

from scheduler.domain.clock import Clock


class Component(msgspec.Struct, frozen=True):
    """State of one part of a role. `since` is when `ok` last changed; `failures` counts those in a row."""

    ok: bool
    detail: str
    since: datetime
    failures: int = 0


class Health:
    """The states of the parts of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._components: dict[str, Component] = {}

    def report(self, name: str, ok: bool, detail: str = "") -> None:
        """Record the state of `name`; cheap when nothing changes."""
        last = self._components.get(name)
        if last is not None and ok and last.ok and last.detail == detail:
            return
        since = last.since if last is not None and last.ok == ok else self._clock.now()
        failures = 0 if ok else (last.failures if last is not None else 0) + 1
        self._components[name] = Component(ok, detail, since, failures)

    def forget(self, name: str) -> None:
        """Drop a part that has ended as it should."""
        self._components.pop(name, None)

    def snapshot(self) -> dict[str, Component]:
        """Return every part's state, in the order in which they first reported."""
        return dict(self._components)

    @property
    def ok(self) -> bool:
        """Say whether every part is well."""
        return all(component.ok for component in self._components.values())
