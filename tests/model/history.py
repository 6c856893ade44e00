"""One history: the machines, the schedulers, what goes wrong, and the promises that are checked at every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any, Final
from uuid import UUID

from tests.model.database import LEASE, ModelDatabase, Run, Violation
from tests.model.leader import Reap, Scheduler
from tests.model.machine import Attempt, Execution, Machine
from tests.model.world import WAIT, Fault, Job, Plan, Process, World

MENDED_WITHIN: Final = 120.0
"""Seconds after the last fault within which everything has ended."""

_UUIDS: Final = [UUID(int=n + 1) for n in range(64)]


class History:
    """Runs a plan. `run` raises Violation when a promise is broken."""

    def __init__(self, plan: Plan, bugs: frozenset[str] = frozenset(), trace: list[str] | None = None) -> None:
        self.plan = plan
        self.world = World(plan, bugs, trace)
        self.database: ModelDatabase = self.world.database
        self.database.on_queued = self._queued
        self.uuids = _UUIDS
        self.jobs: dict[Any, Job] = {}
        self.renewed_at: dict[Any, float] = {}  # when the last renewal of an incarnation was applied
        self.executing: dict[Any, list[Execution]] = {}  # run → what executes, physically
        self.own_failures: Counter[Any] = Counter()
        self.fires: dict[float, str] = {}
        self.next_fire = plan.fires[0] if plan.fires else None
        self.excepted = 0
        self._numbers = count(1)
        self._open_jobs = len(plan.jobs)
        self._reaps: Counter[Any] = Counter()
        self._ended_workers: set[Any] = set()
        self.machines = [Machine(self, n) for n in range(plan.machines)]
        self.schedulers = [Scheduler(self, n) for n in range(plan.schedulers)]

    # ------------------------------------------------------------ names

    def next_worker(self) -> str:
        return f"w{next(self._numbers)}"

    def next_holder(self) -> str:
        return f"h{next(self._numbers)}"

    def next_run(self) -> str:
        return f"f{next(self._numbers)}"

    # ------------------------------------------------------------ the course of it

    def run(self) -> None:
        """Let it happen."""
        world = self.world
        for machine in self.machines:
            world.at(0.001, machine.worker, machine.boot)
        for number, job in enumerate(self.plan.jobs):
            world.at(job.at, None, self._submit, f"r{number}", job)
            if job.cancel_at is not None:
                world.at(job.cancel_at, None, self._cancel, f"r{number}")
        for fault in self.plan.faults:
            world.at(fault.at, None, self._break, fault)
        world.at(self.plan.until, None, world.heal)
        world.run(limit=self.plan.until + MENDED_WITHIN)
        self._judge_the_end()

    def _judge_the_end(self) -> None:
        if not self.world.ended:
            stuck = [f"{run.id} {run.state}" for run in self.database.runs.values() if not run.over]
            raise Violation(f"11: {MENDED_WITHIN:g} s after the last fault: {', '.join(stuck) or self.next_fire}")
        for planned in self.plan.fires:
            if planned not in self.fires:
                raise Violation(f"9: the fire of {planned} has no disposition")
        for run in self.database.runs.values():
            if run.failures > self.own_failures[run.id]:
                raise Violation(
                    f"7: run {run.id} is charged {run.failures} failures of {self.own_failures[run.id]} of its own"
                )
            if run.losses > self._reaps[run.id] and run.on_lost == "retry":
                raise Violation(
                    f"7: run {run.id} is charged {run.losses} losses, its workers were lost {self._reaps[run.id]} times"
                )

    def _submit(self, run_id: str, job: Job) -> None:
        self._open_jobs -= 1
        self.add(Run(run_id, "queued", self.world.now, max_attempts=job.max_attempts, on_lost=job.on_lost), job)

    def add(self, run: Run, job: Job) -> None:
        """Insert a run."""
        self.jobs[run.id] = job
        self.database.insert(run)

    def _cancel(self, run_id: str) -> None:
        if self.world.locked(run=run_id):
            self.world.at(self.world.now + 0.1, None, self._cancel, run_id)
        else:
            self.database.cancel(run_id)
            self.look_for_the_end()

    def _queued(self, run: Run) -> None:
        """A run was queued: Redis brings it to somebody, or does not; PostgreSQL is asked sooner or later."""
        world = self.world
        world.at(world.now + 0.002, None, self._offer, run, run.dispatch_seq)
        world.at(world.now + 1.0 + world.random(), None, self._poll, run, run.dispatch_seq)

    def _offer(self, run: Run, seq: int) -> None:
        world, draw = self.world, self.world.random
        if draw() >= world.lose:
            machine = self.machines[int(draw() * len(self.machines))]
            world.at(world.now, machine.worker, machine.offered, run.id, seq)
        if world.repeat and draw() < world.repeat:
            world.at(world.now + 20 * draw() ** 3, None, self._offer, run, seq)

    def _poll(self, run: Run, seq: int) -> None:
        world = self.world
        if run.state == "queued" and run.dispatch_seq == seq:
            machine = self.machines[int(world.random() * len(self.machines))]
            world.at(world.now, machine.worker, machine.poll)
            world.at(world.now + 1.0 + world.random(), None, self._poll, run, seq)

    def free(self, machine: Machine) -> None:
        """A slot is free: what was offered while there was none is offered again."""
        for run in self.database.runs.values():
            if run.state == "queued":
                self.world.at(self.world.now + 0.01, machine.worker, machine.offered, run.id, run.dispatch_seq)
                return

    def _break(self, fault: Fault) -> None:
        if self.world.trace is not None:
            self.world.say(f"** {fault.kind} ({fault.target}) for {fault.lasts:.2f} s")
        FAULTS[fault.kind](self, fault.target, fault.lasts)

    def _database_down(self, _: int, lasts: float) -> None:
        self.world.database_down_until = max(self.world.database_down_until, self.world.now + lasts)
        for transaction in list(self.world.transactions):
            self.world.end(transaction, commit=False)

    def _scheduler(self, target: int) -> Scheduler:
        return self.schedulers[target % len(self.schedulers)]

    def _machine(self, target: int) -> Machine:
        return self.machines[target % len(self.machines)]

    def _stop(self, process: Process, lasts: float) -> None:
        process.stopped_until = max(process.stopped_until, self.world.now + lasts)

    def _cut(self, process: Process, lasts: float, *, requests: bool = True, answers: bool = True) -> None:
        until = self.world.now + lasts
        if requests:
            process.asking_cut = max(process.asking_cut, until)
        if answers:
            process.answers_cut = max(process.answers_cut, until)

    def _crash(self, target: int, lasts: float) -> None:
        machine = self._machine(target)
        for execution in machine.executions.values():
            self.executing.pop(execution.run.id, None)
        machine.crash(lasts)

    def _freeze(self, target: int, lasts: float) -> None:
        machine = self._machine(target)
        for process in (machine.worker, machine.guard, machine.commands):
            self._stop(process, lasts)
        for execution in machine.executions.values():
            execution.frozen = True

    # ------------------------------------------------------------ what is checked

    def claimed(self, machine: Machine, attempt: Attempt) -> None:
        if attempt.run.worker_id in self._ended_workers:
            raise Violation(f"5: incarnation {attempt.run.worker_id} has ended and claims run {attempt.run.id}")
        if self.world.trace is not None:
            self.world.say(f"run {attempt.run.id} is claimed by worker {machine.number}, fence {attempt.fence}")

    def began(self, machine: Machine, execution: Execution) -> None:
        """A command starts: no other of its run may execute."""
        run_id = execution.run.id
        others = [e for e in self.executing.get(run_id, ()) if self._executes(e)]
        if self.world.trace is not None:
            self.world.say(f"run {run_id} begins on machine {machine.number} (fence {execution.fence})")
        for other in others:
            if other.frozen or execution.frozen or other.machine.unguarded:
                self.excepted += 1
            else:
                raise Violation(
                    f"5: run {run_id} executes under the fences {other.fence} and {execution.fence} at once"
                )
        self.executing[run_id] = [*others, execution]
        if execution.attempt.suspect and any(
            e is not execution and e.attempt.suspect for e in machine.executions.values()
        ):
            raise Violation(f"7: two suspects execute on machine {machine.number}")

    def _executes(self, execution: Execution) -> bool:
        return execution.machine.executions.get(execution.fence) is execution

    def finish(self, worker: Any, run: Run, fence: int, state: str, outcome: str, retry_in: float) -> Any:
        """The statement `finish`, watched."""
        if self.world.locked(run=run.id):
            return WAIT
        if "fence not checked" in self.world.bugs and run.state == "running":
            fence = run.fence
        answer = self.database.finish(worker, run.id, fence, state, outcome, retry_in)
        if self.world.trace is not None:
            self.world.say(f"run {run.id} under fence {fence} is reported {outcome}: {answer or 'nothing changes'}")
        if answer is not None and answer != "repeated":
            for execution in self.executing.get(run.id, ()):
                if execution.fence == fence and self._executes(execution):
                    raise Violation(f"8: run {run.id} is {answer} while its command executes (fence {fence})")
            self.look_for_the_end()
        return answer

    def reaped(self, worker: Any, renewal: int | None, verdicts: list[dict[str, Any]]) -> None:
        """A worker's runs are moved."""
        if renewal is not None:
            now = self.world.now
            if now - self.renewed_at.get(worker, -1e9) < LEASE.ttl:
                raise Violation(
                    f"6: incarnation {worker} is reaped {now - self.renewed_at[worker]:.1f} s after a renewal"
                )
            if now - self.world.database_down_until < LEASE.ttl / 3:
                since = now - self.world.database_down_until
                raise Violation(f"11: incarnation {worker} is reaped {since:.1f} s after the database has come back")
        self._ended_workers.add(worker)
        for verdict in verdicts:
            run = self.database.runs[verdict["run_id"]]
            self._reaps[run.id] += 1
            if self.world.trace is not None:
                self.world.say(f"run {run.id} is lost with incarnation {worker}: {verdict['state']}")
            for execution in self.executing.get(run.id, ()):
                if self._executes(execution) and not (execution.frozen or execution.machine.unguarded):
                    raise Violation(f"5: run {run.id} is taken from incarnation {worker} while it executes there")
        self.world.at(self.world.now, None, self.look_for_the_end)

    def led(self, epoch: int | None) -> None:
        """A write of the scheduler role commits."""
        if epoch != self.database.epoch:
            raise Violation(f"4: epoch {epoch} commits while epoch {self.database.epoch} leads")

    def bury(self, machine: Machine, replaces: Any) -> None:
        """The new worker moves what the one before it was executing."""

        def done(buried: bool) -> None:
            if buried:
                machine.register()
            else:
                self.world.at(self.world.now + 0.3, machine.worker, self.bury, machine, replaces)

        Reap(self, machine.worker, replaces, None, None, done)

    def look_for_the_end(self) -> None:
        if self._open_jobs == 0 and self.next_fire is None and all(run.over for run in self.database.runs.values()):
            self.world.ended = not any(machine.executions for machine in self.machines)
            if not self.world.ended:
                self.world.at(self.world.now + 1.0, None, self.look_for_the_end)


FAULTS: Final[dict[str, Callable[[History, int, float], None]]] = {
    "database down": History._database_down,
    "scheduler killed": lambda h, n, lasts: h._scheduler(n).kill(lasts),
    "scheduler stopped": lambda h, n, lasts: h._stop(h._scheduler(n).process, lasts),
    "scheduler cut": lambda h, n, lasts: h._cut(h._scheduler(n).process, lasts),
    "worker killed": lambda h, n, _: h._machine(n).kill_worker(),
    "worker stopped waiting": lambda h, n, lasts: setattr(h._machine(n).worker, "stops_at_call", lasts),
    "scheduler stopped waiting": lambda h, n, lasts: setattr(h._scheduler(n).process, "stops_at_call", lasts),
    "worker drained": lambda h, n, _: h._machine(n).drain(),
    "worker stopped": lambda h, n, lasts: h._stop(h._machine(n).worker, lasts),
    "worker cut": lambda h, n, lasts: h._cut(h._machine(n).worker, lasts),
    "requests lost": lambda h, n, lasts: h._cut(h._machine(n).worker, lasts, answers=False),
    "answers lost": lambda h, n, lasts: h._cut(h._machine(n).worker, lasts, requests=False),
    "guard killed": lambda h, n, _: h._machine(n).kill_guard(),
    "guard stopped": lambda h, n, lasts: h._stop(h._machine(n).guard, lasts),
    "machine crashed": History._crash,
    "machine frozen": History._freeze,
}
"""What can go wrong with the scheduler, or the machine, of a number."""
