"""How a command is executed: `process` here, others as plug-ins.

A worker announces the executors that it offers, and gets only runs that ask for one of them.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from scheduler.domain.task import TaskSpec
from scheduler.worker.capture import Capture
from scheduler.worker.launch import Launch


class Execution(Protocol):
    """A command that was started. `gone` is done once nothing of it is left and its output is in the capture.

    `out_of_memory` says then whether anything of it was killed for using more memory than it may.
    """

    running: bool
    exit_code: int | None
    exit_signal: int | None
    out_of_memory: bool
    printed_at: float
    gone: asyncio.Future[None]

    def signal(self, number: int) -> None:
        """Signal everything that belongs to it."""
        ...

    def kill(self) -> None:
        """End everything that belongs to it, in a moment."""
        ...


class Executor(Protocol):
    """Starts commands in one particular way."""

    name: str
    containment: str

    async def start(self, launch: Launch, spec: TaskSpec, fence: int, capture: Capture) -> Execution:
        """Start a command. Raises SpawnError, or LeaseLost if it is no longer this worker's to start."""
        ...
