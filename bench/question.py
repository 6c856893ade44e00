"""What a question is, and what it is given to answer with."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import ClassVar, TypeVar

from bench.model import Sample
from bench.native import Programs
from bench.system import System, start_system

T = TypeVar("T")


class Bench:
    """One run of the bench: its size, its private directory, its programs, and what it found out on the way."""

    def __init__(
        self,
        work: Path,
        *,
        quick: bool,
        pending: int | None = None,
        history: int | None = None,
        full_sizes: bool = False,
        peers: Collection[str] = (),
    ) -> None:
        self.work = work
        self.quick = quick
        self.pending = pending
        self.history = history
        self.full_sizes = full_sizes
        self.peers = peers  # names; none: all of them
        self.programs = Programs(work)
        self.settings: dict[str, str] = {}
        self._systems = 0

    def fresh_directory(self) -> Path:
        """Return a new place for a system's data."""
        self._systems += 1
        return self.work / f"system-{self._systems}"

    def system(
        self, *, workers: int = 1, concurrency: int | None = None, data: Path | None = None, valkey: bool = True
    ) -> AbstractAsyncContextManager[System]:
        """Start a system of our own: on `data` if given (it goes on with what is there), else on nothing.

        `concurrency` is the slots of each worker; None leaves the default. Raises ServerFailed, NotDurable.
        """
        return start_system(
            data or self.fresh_directory(),
            workers=workers,
            concurrency=concurrency,
            valkey=valkey,
            settings=self.settings,
        )


class Question(abc.ABC):
    """One question. Its module's docstring says what it asks, what it compares with, and why that is fair."""

    name: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.notes: list[str] = []
        self.round = 0

    @classmethod
    def about(cls) -> str:
        """Return the docstring of the question's module."""
        return inspect.cleandoc(inspect.getmodule(cls).__doc__ or "")

    async def prepare(self, stack: AsyncExitStack) -> None:  # noqa: B027 - most have nothing to prepare
        """Do, once before the first round, what is too slow to do in every round; `stack` is closed after the last."""

    @abc.abstractmethod
    async def ask(self) -> list[Sample]:
        """Measure one round, with whatever it is compared with measured in it too."""

    def turned(self, items: Sequence[T]) -> Sequence[T]:
        """Return `items`, in every other round the other way round: so that none of them always comes first."""
        return items if self.round % 2 == 0 else items[::-1]

    def note(self, text: str) -> None:
        """Say once, under the table, what a reader must know."""
        if text not in self.notes:
            self.notes.append(text)
