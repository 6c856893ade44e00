"""Arming failpoints: in this process by `held` and `failing`, in others through a directory that they share with us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import anyio

from scheduler import failpoints
from scheduler.failpoints import Point

Action = Literal["crash", "stop", "pause", "error"]


class Failpoints:
    """What is armed for processes whose environment is `environment`. Each action is taken once, by one process."""

    def __init__(self, directory: Path) -> None:
        self.environment = {failpoints.VARIABLE: str(directory)}
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o777)

    def arm(self, point: Point, action: Action) -> None:
        """Let the next process that reaches the point do this."""
        for old in self._directory.glob(f"{point}.*"):
            old.unlink()
        fresh = self._directory / f"+{point}"
        fresh.write_text(action)
        fresh.rename(self._directory / point)

    def disarm(self, point: Point) -> bool:
        """Take an action back; False if somebody has taken it."""
        try:
            (self._directory / point).unlink()
        except FileNotFoundError:
            return False
        return True

    def reached(self, point: Point) -> int | None:
        """Return the process that took the action, once it has."""
        for taken in self._directory.glob(f"{point}.*"):
            return int(taken.name.rpartition(".")[2])
        return None

    def release(self, point: Point) -> None:
        """Let whoever waits there go on."""
        for taken in self._directory.glob(f"{point}.*"):
            taken.unlink()


class Held:
    """Whoever reaches the point sets `reached` and waits for `go`."""

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self.go = anyio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.go.wait()


@contextmanager
def held(point: Point) -> Iterator[Held]:
    """Hold everybody in this process who reaches the point while the block lasts, until `go` is set."""
    gate = Held()
    failpoints.handlers[point] = gate
    try:
        yield gate
    finally:
        del failpoints.handlers[point]
        gate.go.set()


@contextmanager
def failing(point: Point, *errors: Exception) -> Iterator[list[Exception]]:
    """Raise these, one each time that the point is reached in this process; yields those that are left."""
    left = list(errors)

    async def fail() -> None:
        if left:
            raise left.pop(0)

    failpoints.handlers[point] = fail
    try:
        yield left
    finally:
        del failpoints.handlers[point]
