"""Virtual time, the network, processes that stop and die, and the plan of a history's faults.

An event is (moment, number, process, generation, function, arguments). Events of a process that was killed since are
dropped, those of a stopped one wait until it goes on: what was on its way to it arrives then.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

import msgspec

from tests.model.database import ModelDatabase, Violation

TERM_TTL: Final = 5.0
AWAY: Final = object()
"""What a call comes to when its request or its answer was lost, or the database was away."""
WAIT: Final = object()
"""What a statement returns that waits for a lock."""


class Fault(msgspec.Struct, frozen=True):
    """What goes wrong at `at`, for `lasts` seconds, with one machine or scheduler (`target`)."""

    kind: str
    at: float
    lasts: float
    target: int


class Job(msgspec.Struct, frozen=True):
    """A run of the history: how long its command takes, what it exits with each time, whether it heeds TERM."""

    at: float
    takes: float
    exits: tuple[int, ...] = (0,)
    stubborn: bool = False
    max_attempts: int = 1
    on_lost: str = "retry"
    cancel_at: float | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a history that its `seed` does not decide message by message."""

    seed: int
    jobs: tuple[Job, ...]
    faults: tuple[Fault, ...] = ()
    machines: int = 2
    schedulers: int = 1
    fires: tuple[float, ...] = ()
    lose: float = 0.0
    """The share of messages that get lost."""
    slow: float = 0.0
    """The share of messages that take long, up to `slowest` seconds."""
    slowest: float = 0.0
    repeat: float = 0.0
    """The share of offers that come again, later."""
    until: float = 20.0
    """When everything has healed."""


class Process:
    """What can be killed (its generation grows), stopped, and cut off from the database."""

    __slots__ = ("answers_cut", "asking_cut", "generation", "name", "stopped_until", "stops_at_call")

    def __init__(self, name: str) -> None:
        self.name = name
        self.generation = 0
        self.stopped_until = 0.0
        self.stops_at_call = 0.0  # for how long, with the next call, once its request has gone out
        self.asking_cut = 0.0
        self.answers_cut = 0.0


class Transaction:
    """A transaction of several statements: what it holds, and what its commit changes."""

    __slots__ = ("epoch", "on_commit", "open", "process", "runs", "touched", "worker")

    def __init__(self, process: Process) -> None:
        self.process = process
        self.open = True
        self.epoch: int | None = None
        self.worker: Any = None
        self.runs: set[Any] = set()
        self.on_commit: list[Callable[[], None]] = []
        self.touched = 0


class World:
    """One history. `bugs` names what is broken on purpose; `trace` collects what happened, if it is a list."""

    def __init__(self, plan: Plan, bugs: frozenset[str] = frozenset(), trace: list[str] | None = None) -> None:
        self.plan = plan
        self.bugs = bugs
        self.trace = trace
        self.now = 0.0
        self.random = random.Random(plan.seed).random
        self.database = ModelDatabase()
        self.database_down_until = -1e9
        self.transactions: list[Transaction] = []
        self.ended = False
        self._waiting: list[tuple[Any, ...]] = []
        self._queue: list[tuple[float, float, Process | None, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self.lose, self.slow, self.repeat = plan.lose, plan.slow, plan.repeat
        self._faulty = bool(plan.lose or plan.slow)
        self.steps = 0

    def say(self, text: str) -> None:
        """Note what happens; call only when tracing."""
        assert self.trace is not None
        self.trace.append(f"{self.now:9.4f}  {text}")

    def at(self, moment: float, process: Process | None, call: Callable[..., None], *args: Any) -> None:
        """Do something at a moment, in a process that is the same then."""
        self._number += 1
        generation = 0 if process is None else process.generation
        heappush(self._queue, (moment, self._number, process, generation, call, args))

    def run(self, *, limit: float) -> None:
        """Let time pass until `ended` is set, or until `limit`."""
        queue, database = self._queue, self.database
        while queue and not self.ended:
            moment, _, process, generation, call, args = heappop(queue)
            if process is not None:
                if process.generation != generation:
                    continue
                if process.stopped_until > moment:
                    # When it goes on, what has gathered comes in any order.
                    heappush(queue, (process.stopped_until, 1e12 * self.random(), process, generation, call, args))
                    continue
            if moment > limit:
                self.now = limit
                return
            self.now = database.now = moment
            self.steps += 1
            call(*args)

    def heal(self) -> None:
        """From now on every message arrives, at once and once."""
        self.lose = self.slow = self.repeat = 0.0
        self._faulty = False

    # ------------------------------------------------------------ statements

    def ask(
        self, process: Process, statement: Callable[[], Any], then: Callable[[Any], None], *, patience: float = 5.0
    ) -> None:
        """Send a statement; `then` gets what it returned, or AWAY: then it may have been applied, or may yet be."""
        now, draw = self.now, self.random
        if process.stops_at_call:
            process.stopped_until = max(process.stopped_until, now + process.stops_at_call)
            process.stops_at_call = 0.0
        elif not self._faulty:
            if process.asking_cut <= now and process.answers_cut <= now:
                self.at(
                    now + 0.001 + 0.004 * draw(), process, self._serve_at_once, process, statement, then, now + patience
                )
                return
        elif process.asking_cut <= now and draw() < self.lose:
            self.at(now + patience, process, then, AWAY)
            return
        if process.asking_cut > now:
            self.at(now + patience, process, then, AWAY)
            return
        self.at(now + self._delay(), None, self._serve, process, process.generation, statement, then, now + patience)

    def _delay(self) -> float:
        draw = self.random
        return draw() * self.plan.slowest if draw() < self.slow else 0.001 + 0.004 * draw()

    def _serve_at_once(
        self, process: Process, statement: Callable[[], Any], then: Callable[[Any], None], give_up: float
    ) -> None:
        if self.database_down_until > self.now:
            then(AWAY)
        elif (value := statement()) is WAIT:
            self._waiting.append((process, process.generation, statement, then, give_up))
        else:
            then(value)

    def _serve(
        self,
        process: Process,
        generation: int,
        statement: Callable[[], Any],
        then: Callable[[Any], None],
        give_up: float,
    ) -> None:
        now = self.now
        if self.database_down_until > now:
            self._answer(process, generation, now + 0.01, then, AWAY)
            return
        value = statement()
        if value is WAIT:
            self._waiting.append((process, generation, statement, then, give_up))
            return
        arrives = now + self._delay()
        if process.answers_cut > now or self.random() < self.lose or arrives > give_up:
            self._answer(process, generation, max(now, give_up), then, AWAY)
        else:
            self._answer(process, generation, arrives, then, value)

    def _answer(
        self, process: Process, generation: int, moment: float, then: Callable[[Any], None], value: Any
    ) -> None:
        self._number += 1
        heappush(self._queue, (moment, self._number, process, generation, then, (value,)))

    def locked(self, *, worker: Any = None, run: Any = None, by: Transaction | None = None) -> bool:
        """Say whether an open transaction other than `by` has written the worker's rows, or locked the run."""
        return any(
            t is not by and ((worker is not None and t.worker == worker) or (run is not None and run in t.runs))
            for t in self.transactions
        )

    def begin(self, process: Process) -> Transaction:
        """Open a transaction."""
        transaction = Transaction(process)
        self.transactions.append(transaction)
        return transaction

    def end(self, transaction: Transaction, *, commit: bool) -> bool:
        """Close it; return whether it was still open. Whoever waited for it goes on."""
        if not transaction.open:
            return False
        transaction.open = False
        self.transactions.remove(transaction)
        if commit:
            if transaction.epoch is not None and transaction.epoch != self.database.epoch:
                raise Violation(f"4: epoch {transaction.epoch} commits while epoch {self.database.epoch} leads")
            for change in transaction.on_commit:
                change()
        waiting, self._waiting = self._waiting, []
        for process, generation, statement, then, give_up in waiting:
            self.at(self.now, None, self._serve, process, generation, statement, then, max(give_up, self.now + 0.1))
        return True
