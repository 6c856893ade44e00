"""Coroutines that are used again.

Starting a task in a task group costs more than all else that the event loop does for a short command. So a runner that
has finished one item waits for the next instead of ending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio.abc

Item = TypeVar("Item")


class Runners(Generic[Item]):
    """Runs `run(item)` for many items at once, in `group`; as many runners come to be as were ever needed at a time."""

    def __init__(self, group: anyio.abc.TaskGroup, run: Callable[[Item], Awaitable[None]], name: str) -> None:
        self._group = group
        self._run = run
        self._name = name
        self._count = 0
        self._idle: list[asyncio.Future[Item | None]] = []

    def start(self, item: Item) -> None:
        """Run an item now."""
        if self._idle:
            self._idle.pop().set_result(item)
        else:
            self._count += 1
            self._group.start_soon(self._work, item, name=f"{self._name} {self._count}")

    def dismiss(self) -> None:
        """End the runners that have nothing to do."""
        for idle in self._idle:
            if not idle.done():
                idle.set_result(None)
        self._idle.clear()

    async def _work(self, first: Item) -> None:
        item: Item | None = first
        loop = asyncio.get_running_loop()
        while item is not None:
            await self._run(item)
            idle: asyncio.Future[Item | None] = loop.create_future()
            self._idle.append(idle)
            item = await idle
