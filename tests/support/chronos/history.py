"""What a test observed: what was planned, what the system recorded, and what commands stamped of themselves.

All moments are seconds since 1970 on the machine's clock.
"""

from __future__ import annotations

import msgspec


class Planned(msgspec.Struct, frozen=True):
    """A task with `count` fires, the first at `start`, one each `every` seconds; its command takes `duration`.

    Its policies demand a run for each fire. An execution may begin `epsilon` seconds late.
    """

    name: str
    start: int
    every: int
    count: int
    duration: float
    epsilon: float

    def fires(self) -> list[int]:
        return [self.start + number * self.every for number in range(self.count)]


class Fire(msgspec.Struct, frozen=True):
    """A recorded disposition; `until` and `count` for a stretch of fires that share it."""

    task: str
    at: int
    disposition: str
    run: str | None
    count: int = 1


class Run(msgspec.Struct, frozen=True):
    """A run as it stands in the end; `planned_for` is None for one-off tasks."""

    id: str
    task: str
    planned_for: int | None
    state: str
    reason: str | None = None
    losses: int = 0


class Attempt(msgspec.Struct, frozen=True):
    """A recorded attempt."""

    run: str
    number: int
    fence: int
    outcome: str
    reason: str | None = None


class Execution(msgspec.Struct, frozen=True):
    """What a command stamped: when it began and ended, and for how long an older one of its run was still there.

    `shared` is 0 for one that began alone. `excepted`: it began after a fault that the promises except.
    """

    run: str
    attempt: int
    fence: int
    begin: float
    end: float | None
    shared: float = 0.0
    excepted: bool = False


class History(msgspec.Struct, frozen=True):
    """Everything observed, read once all was quiet. `acknowledged` are one-off runs that were answered with 2xx."""

    planned: list[Planned]
    acknowledged: list[str]
    fires: list[Fire]
    runs: list[Run]
    attempts: list[Attempt]
    executions: list[Execution]
