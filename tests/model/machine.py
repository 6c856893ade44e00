"""A machine: a worker, its guard, and the commands that execute there.

What the worker and the guard decide, they decide by `scheduler.domain`: when to stop (LeaseClock, demand), what never
arrived (MissingRuns), what an end means (end_of, decide). The rest is the order of things as in `scheduler/worker`.
"""

from __future__ import annotations

import random
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any

from scheduler.domain.guarding import demand
from scheduler.domain.lease import LeaseClock
from scheduler.domain.renewal import ClaimCalls, MissingRuns
from scheduler.domain.retry import AttemptEnd, Decision, Stop, decide, end_of
from scheduler.domain.task import Retry
from tests.model.database import LEASE, Run, Violation
from tests.model.world import AWAY, WAIT, Job, Process, World

SLOTS = 2
KILL_TIMEOUT = 2.0
DRAIN = 3.0
_RENEW_EVERY = LEASE.renew_every
_START = datetime(2026, 1, 1, tzinfo=UTC)
_POLICY = {n: Retry(max_attempts=n, initial_interval=0.5, max_interval=2.0) for n in range(1, 6)}


class Attempt:
    """What a worker knows of a claimed run."""

    __slots__ = (
        "abandoned",
        "attempt",
        "execution",
        "failures",
        "fence",
        "losses",
        "reported",
        "run",
        "stop",
        "suspect",
    )

    def __init__(self, run: Run) -> None:
        self.run = run
        self.fence = run.fence
        self.attempt = run.attempt
        self.failures = run.failures
        self.losses = run.losses
        self.suspect = run.suspect
        self.stop: Stop | None = None
        self.abandoned = False
        self.reported = False
        self.execution: Execution | None = None


class Execution:
    """A command that executes, physically."""

    __slots__ = ("asked_before", "attempt", "fence", "frozen", "job", "machine", "run", "signal")

    def __init__(self, machine: Machine, attempt: Attempt, job: Job) -> None:
        self.machine = machine
        self.attempt = attempt
        self.fence = attempt.fence
        self.run = attempt.run
        self.job = job
        self.asked_before = machine.asked
        self.signal: str | None = None
        self.frozen = False


class Incarnation:
    """One registration."""

    __slots__ = ("attempts", "calls", "drained", "id", "lease", "lost", "missing", "reserved", "stopped", "suspect")

    def __init__(self, worker_id: Any, sent: float) -> None:
        self.id = worker_id
        self.lease = LeaseClock(LEASE)
        self.lease.renewed(sent)
        self.calls = ClaimCalls()
        self.missing = MissingRuns()
        self.attempts: dict[int, Attempt] = {}
        self.reserved = 0
        self.lost = False
        self.drained = False
        self.stopped = False
        self.suspect: int | None = None


class Machine:
    """One worker and its guard. `model` is the history that it is part of."""

    def __init__(self, model: Any, number: int) -> None:
        self.model = model
        self.world: World = model.world
        self.number = number
        self.worker = Process(f"worker {number}")
        self.guard = Process(f"guard {number}")
        self.commands = Process(f"commands {number}")
        self.executions: dict[int, Execution] = {}
        self.incarnation: Incarnation | None = None
        self.registered: Any = None
        self.deadline = self.ask_at = self.asked = 0.0
        self.starting = 0
        self.guard_dead = False
        self._rng = random.Random(number)

    @property
    def tree_empty(self) -> bool:
        return not self.executions and not self.starting

    # ------------------------------------------------------------ the guard

    def boot(self, replaces: Any = None) -> None:
        """Start the worker; what the one before was executing is moved first, if the guard has seen it dead."""
        self.deadline = self.ask_at = self.asked = 0.0
        self.starting = 0
        self.guard_dead = False
        self.incarnation = self.registered = None
        if replaces is None:
            self.register()
        else:
            self.model.bury(self, replaces)

    def look(self) -> None:
        """The guard looks at the lease."""
        if "no guard" in self.world.bugs:
            return
        now = self.world.now
        what, look_at = demand(
            now, deadline=self.deadline, ask_at=self.ask_at, asked=self.asked, tree_empty=self.tree_empty
        )
        if what == "ask":
            self.asked = self.deadline
            for execution in list(self.executions.values()):
                self.terminate(execution)
        elif what == "kill":
            if self.world.trace is not None:
                self.world.say(f"guard {self.number} kills its worker and {list(self.executions)}")
            self.kill_worker()
            return
        if look_at:
            self.world.at(look_at, self.guard, self.look)

    def kill_worker(self) -> None:
        """The worker dies; the guard sees it and empties the tree."""
        self._worker_is_gone()
        self.world.at(self.world.now + 0.01, self.guard, self.worker_ended)

    def _worker_is_gone(self) -> None:
        self.worker.generation += 1
        self.worker.stopped_until = 0.0
        self.incarnation = None

    def worker_ended(self) -> None:
        """The guard has seen the worker end: first nothing is left of its commands, then a new one starts."""
        replaces = self.registered
        for execution in list(self.executions.values()):
            self.kill(execution)
        if self.executions:  # frozen: they die as soon as they thaw
            self.world.at(self.world.now + 0.5, self.guard, self.worker_ended)
            return
        self.guard.generation += 1  # its timers were for the worker before
        self.world.at(self.world.now + 0.1, self.worker, self.boot, replaces)

    @property
    def unguarded(self) -> bool:
        """Whether the guard is stopped, or was killed and the worker could not act on it."""
        return self.guard_dead or self.guard.stopped_until > self.world.now

    def kill_guard(self) -> None:
        """The guard dies: its worker sees it, kills what it runs, ends; whoever supervises starts both again."""
        self.guard.generation += 1
        self.guard_dead = True
        self.world.at(self.world.now + 0.01, self.worker, self._guard_ended)

    def _guard_ended(self) -> None:
        for execution in list(self.executions.values()):
            self.kill(execution)
        self._worker_is_gone()
        self.guard.stopped_until = 0.0
        self.world.at(self.world.now + 1.0, self.worker, self.boot)

    def crash(self, lasts: float) -> None:
        """The machine loses power."""
        for process in (self.worker, self.guard, self.commands):
            process.generation += 1
            process.stopped_until = 0.0
        self.executions.clear()
        self.incarnation = self.registered = None
        self.world.at(self.world.now + lasts, self.worker, self.boot)

    # ------------------------------------------------------------ registering and the lease

    def register(self) -> None:
        model, sent, worker_id = self.model, self.world.now, self.model.next_worker()
        self.registered = worker_id

        def insert() -> Any:
            model.database.register(worker_id)
            model.renewed_at.setdefault(worker_id, self.world.now)

        def done(answer: Any) -> None:
            if answer is AWAY:
                self.world.at(self.world.now + 0.3, self.worker, again)
            else:
                self._begin(worker_id, sent)

        def again() -> None:
            self.world.ask(self.worker, insert, done, patience=3.0)

        again()

    def _begin(self, worker_id: Any, sent: float) -> None:
        incarnation = self.incarnation = Incarnation(worker_id, sent)
        if self.world.trace is not None:
            self.world.say(f"worker {self.number} is incarnation {worker_id}")
        self._write_page(incarnation)
        self.guard.generation += 1
        self.world.at(self.world.now, self.guard, self.look)
        self.world.at(incarnation.lease.ask_at, self.worker, self._expire, incarnation)
        self._renew(incarnation, 0)
        self.model.free(self)

    def _write_page(self, incarnation: Incarnation) -> None:
        self.deadline, self.ask_at = incarnation.lease.deadline, incarnation.lease.ask_at

    def _renew(self, incarnation: Incarnation, failures: int) -> None:
        if incarnation is not self.incarnation:
            return
        world, model, worker_id = self.world, self.model, incarnation.id
        sent, held, begun = world.now, tuple(incarnation.attempts), incarnation.calls.begun

        def renew() -> Any:
            if world.locked(worker=worker_id):
                return WAIT
            answer = model.database.renew(worker_id, held)
            if answer is not None:
                model.renewed_at[worker_id] = world.now
            return answer

        def done(answer: Any) -> None:
            if incarnation is not self.incarnation:
                return
            if answer is AWAY:
                world.at(world.now + min(0.05 * 2**failures, 1.0), self.worker, self._renew, incarnation, failures + 1)
                return
            if answer is None:
                self._lose(incarnation)
                world.at(world.now + _RENEW_EVERY, self.worker, self._renew, incarnation, 0)
                return
            incarnation.lease.renewed(world.now if "deadline from the answer" in world.bugs else sent)
            self._write_page(incarnation)
            self._obey(incarnation, answer, begun)
            world.at(max(world.now, sent + _RENEW_EVERY), self.worker, self._renew, incarnation, 0)

        world.ask(self.worker, renew, done, patience=_RENEW_EVERY)

    def _obey(self, incarnation: Incarnation, answer: tuple[list[int], list[int], list[int]], begun: int) -> None:
        cancel, lost, lacking = answer
        for fence in cancel:
            if attempt := incarnation.attempts.get(fence):
                self.stop(attempt, "cancelled")
        for fence in lost:
            attempt = incarnation.attempts.get(fence)
            if attempt is not None and not attempt.reported:
                self._abandon(attempt)
        calls = incarnation.calls
        if "missing at once" in self.world.bugs:
            calls = ClaimCalls()
        elif "claims counted at the sending" in self.world.bugs:
            calls = copy(calls)
            calls.begun = begun
        for fence in incarnation.missing.given_up(lacking, incarnation.attempts, calls):
            self._requeue(incarnation, fence)

    def _requeue(self, incarnation: Incarnation, fence: int) -> None:
        run = next((run for run in self.model.database.runs.values() if run.fence == fence), None)
        if run is not None:
            if self.world.trace is not None:
                self.world.say(f"worker {self.number} gives run {run.id} back: fence {fence} never arrived")
            self.world.ask(
                self.worker,
                lambda: self.model.finish(incarnation.id, run, fence, "pending", "requeued", 0.0),
                lambda _: None,
                patience=_RENEW_EVERY,
            )

    def _expire(self, incarnation: Incarnation) -> None:
        if incarnation is not self.incarnation:
            return
        now, lease = self.world.now, incarnation.lease
        phase = lease.phase(now)
        if phase in {"killing", "over"}:
            self._lose(incarnation)
            return
        if phase == "ending":
            for attempt in list(incarnation.attempts.values()):
                self.stop(attempt, "lease")
        self.world.at(now + lease.next_change(now), self.worker, self._expire, incarnation)

    def _lose(self, incarnation: Incarnation) -> None:
        if self.world.trace is not None and not incarnation.lost:
            self.world.say(f"worker {self.number} has lost its lease")
        incarnation.lost = True
        for attempt in list(incarnation.attempts.values()):
            self.stop(attempt, "lease")
            if attempt.execution is not None:
                self.kill(attempt.execution)
        self._end_if_idle(incarnation)

    def _end_if_idle(self, incarnation: Incarnation) -> None:
        if (
            not (incarnation.lost or incarnation.drained)
            or incarnation.attempts
            or not incarnation.calls.none
            or incarnation is not self.incarnation
        ):
            return
        self.incarnation = None
        database, world = self.model.database, self.world
        world.ask(
            self.worker,
            lambda: WAIT if world.locked(worker=incarnation.id) else database.leave(incarnation.id),
            lambda _: self.register(),
            patience=2.0,
        )

    def drain(self) -> None:
        """The worker is told to stop: it claims no more, waits, makes what is left end, leaves; another takes over."""
        incarnation = self.incarnation
        if incarnation is None or incarnation.lost or incarnation.drained:
            return
        incarnation.drained = True
        self.world.ask(self.worker, lambda: self.model.database.drain(incarnation.id), lambda _: None)
        self.world.at(self.world.now + DRAIN, self.worker, self._stop_all, incarnation)
        self._end_if_idle(incarnation)

    def _stop_all(self, incarnation: Incarnation) -> None:
        incarnation.stopped = True
        for attempt in list(incarnation.attempts.values()):
            self.stop(attempt, "drained")

    # ------------------------------------------------------------ claiming

    @property
    def room(self) -> int:
        incarnation = self.incarnation
        if incarnation is None or incarnation.lost or incarnation.drained:
            return 0
        return SLOTS - len(incarnation.attempts) - incarnation.reserved

    def offered(self, run_id: Any, seq: int) -> None:
        """An offer has come."""
        if self.room > 0:
            database = self.model.database
            self._claim(lambda worker_id: database.claim(worker_id, [(run_id, seq)]))

    def poll(self) -> None:
        """Redis has brought nothing for a while."""
        if (room := self.room) > 0:
            database = self.model.database
            self._claim(lambda worker_id: database.claim_waiting(worker_id, room, 1.0))

    def _claim(self, statement: Any) -> None:
        incarnation, world, model = self.incarnation, self.world, self.model
        assert incarnation is not None
        number = incarnation.calls.begin()
        incarnation.reserved += 1

        def claim() -> Any:
            if world.locked(worker=incarnation.id):
                return WAIT
            rows = [Attempt(run) for run in statement(incarnation.id)]
            for attempt in rows:
                model.claimed(self, attempt)
            return rows

        def done(rows: Any) -> None:
            incarnation.reserved -= 1
            if rows is not AWAY:
                for attempt in rows:
                    incarnation.attempts[attempt.fence] = attempt
            incarnation.calls.end(number)
            if rows is not AWAY:
                for attempt in rows:
                    self._start(incarnation, attempt)
            self._end_if_idle(incarnation)

        world.ask(self.worker, claim, done, patience=35.0 if "patient claims" in world.bugs else 5.0)

    def _start(self, incarnation: Incarnation, attempt: Attempt) -> None:
        if incarnation.lost:
            attempt.stop = "lease"
        elif incarnation.stopped:
            attempt.stop = "drained"
        if attempt.suspect:
            if incarnation.suspect is not None:
                self._report(incarnation, attempt, AttemptEnd(kind="drained"), retry_in=2.0)
                return
            incarnation.suspect = attempt.fence
        if attempt.stop is not None:
            kind = "cancelled" if attempt.stop == "cancelled" else "drained"
            self._report(incarnation, attempt, AttemptEnd(kind=kind))
            return
        self.starting += 1
        if 0 < self.deadline <= self.world.now:  # too late to start it; it will be missed
            self.starting -= 1
            self._drop(incarnation, attempt)
        elif self.world.random() < self.world.slow:
            self.world.at(self.world.now + 2 * self.world.random(), self.worker, self._spawn, attempt)
        else:
            self._spawn(attempt)

    def _spawn(self, attempt: Attempt) -> None:
        """The lease was looked at before; whatever time has passed since, the guard knows that something starts."""
        self.starting -= 1
        execution = attempt.execution = Execution(self, attempt, self.model.jobs[attempt.run.id])
        self.executions[attempt.fence] = execution
        self.model.began(self, execution)
        self.world.at(self.world.now + execution.job.takes, self.commands, self._exit, execution)
        if attempt.stop == "lease" or attempt.abandoned:
            self.kill(execution)
        elif attempt.stop is not None:
            self._bring_to_end(execution)

    # ------------------------------------------------------------ the end of a command

    def _exit(self, execution: Execution) -> None:
        """The command and all that descends from it are gone."""
        if self.executions.pop(execution.fence, None) is None:
            return
        if self.world.trace is not None:
            self.world.say(f"run {execution.run.id} ends on machine {self.number} (fence {execution.fence})")
        self.world.at(self.world.now + 0.001, self.worker, self._ended, execution)

    def _ended(self, execution: Execution) -> None:
        incarnation, attempt = self.incarnation, execution.attempt
        if incarnation is None or incarnation.attempts.get(attempt.fence) is not attempt:
            return
        if attempt.abandoned:
            self._drop(incarnation, attempt)
            return
        code = None
        if execution.signal is None:
            code = execution.job.exits[min(attempt.attempt, len(execution.job.exits)) - 1]
        end = end_of(
            attempt.stop,
            exit_code=code,
            signal=execution.signal,
            on_lost=attempt.run.on_lost,  # type: ignore[arg-type]
            asked_by_guard=execution.asked_before != self.asked and "guard's TERM charged" not in self.world.bugs,
        )
        if end.kind == "exit" and code:
            self.model.own_failures[attempt.run.id] += 1
        self._report(incarnation, attempt, end)

    def _report(
        self, incarnation: Incarnation, attempt: Attempt, end: AttemptEnd, retry_in: float | None = None
    ) -> None:
        now = _START + timedelta(seconds=self.world.now)
        decision = decide(
            end,
            _POLICY[attempt.run.max_attempts],
            failures=attempt.failures,
            losses=attempt.losses,
            first_started_at=_START,
            now=now,
            on_lost=attempt.run.on_lost,  # type: ignore[arg-type]
            rng=self._rng,
        )
        attempt.reported = True
        if "reported before the end" in self.world.bugs and attempt.execution is not None:
            self.executions.setdefault(attempt.fence, attempt.execution)
            self.world.at(self.world.now + 0.5, self.commands, self.executions.pop, attempt.fence, None)
        self._finish(incarnation, attempt, decision, decision.retry_in if retry_in is None else retry_in, 0)

    def _finish(
        self, incarnation: Incarnation, attempt: Attempt, decision: Decision, retry_in: float, failures: int
    ) -> None:
        if attempt.abandoned:
            self._drop(incarnation, attempt)
            return

        def done(answer: Any) -> None:
            if answer is AWAY:
                wait = min(0.05 * 2**failures, 1.0)
                self.world.at(
                    self.world.now + wait,
                    self.worker,
                    self._finish,
                    incarnation,
                    attempt,
                    decision,
                    retry_in,
                    failures + 1,
                )
            else:
                self._drop(incarnation, attempt)

        self.world.ask(
            self.worker,
            lambda: self.model.finish(
                incarnation.id, attempt.run, attempt.fence, decision.state, decision.attempt_outcome, retry_in
            ),
            done,
        )

    def _drop(self, incarnation: Incarnation, attempt: Attempt) -> None:
        incarnation.attempts.pop(attempt.fence, None)
        if incarnation.suspect == attempt.fence:
            incarnation.suspect = None
        self._end_if_idle(incarnation)
        if incarnation is self.incarnation:
            self.model.free(self)

    def _abandon(self, attempt: Attempt) -> None:
        attempt.abandoned = True
        attempt.stop = "lease"
        if attempt.execution is not None:
            self.kill(attempt.execution)

    def stop(self, attempt: Attempt, why: Stop) -> None:
        """Make an attempt end. The first reason stands, but losing the lease overrides all."""
        if attempt.stop == "lease" or (attempt.stop is not None and why != "lease"):
            return
        first = attempt.stop is None
        attempt.stop = why
        if first and attempt.execution is not None:
            self._bring_to_end(attempt.execution)

    def _bring_to_end(self, execution: Execution) -> None:
        self.terminate(execution)
        if execution.fence in self.executions:
            self.world.at(self.world.now + KILL_TIMEOUT, self.worker, self.kill, execution)

    def terminate(self, execution: Execution) -> None:
        """TERM."""
        if execution.fence in self.executions and not execution.job.stubborn:
            execution.signal = "TERM"
            self.world.at(self.world.now + 0.02, self.commands, self._exit, execution)

    def kill(self, execution: Execution) -> None:
        """KILL: it is gone at once, unless the machine is frozen."""
        if execution.fence not in self.executions:
            return
        if self.commands.stopped_until > self.world.now:
            self.world.at(self.commands.stopped_until, None, self.kill, execution)
            return
        execution.signal = execution.signal or "KILL"
        self._exit(execution)
        if execution.fence in self.executions:
            raise Violation("8: it outlived SIGKILL")
