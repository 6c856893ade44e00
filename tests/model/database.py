"""PostgreSQL as far as the protocol uses it: rows in memory, one method for each statement.

The statements of `scheduler/store/sql` are the original; `test_sql_machine.py` holds the two against each other. Time
is in seconds since the history began, fences are numbers from one sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from scheduler.domain.lease import LeaseTerms
from scheduler.domain.loss import Lost, judge_losses
from scheduler.domain.observation import SeenLease
from scheduler.domain.run import TERMINAL, TRANSITIONS

LEASE = LeaseTerms()


class Violation(Exception):
    """A promise is broken. The message begins with its number."""


class Run:
    """A row of `runs`. Booleans and numbers as there; times are seconds; `on_lost` is what its task makes of a loss."""

    __slots__ = (
        "attempt", "cancel_requested", "dispatch_seq", "failures", "fence", "held", "id", "losses", "max_attempts",
        "on_lost", "queued_at", "reason", "run_at", "scheduled_for", "state", "suspect", "worker_id",
    )  # fmt: skip

    def __init__(
        self,
        run_id: Any,
        state: str,
        run_at: float,
        *,
        max_attempts: int = 1,
        on_lost: str = "retry",
        queued_at: float | None = None,
    ) -> None:
        self.id = run_id
        self.state = state
        self.run_at = run_at
        self.queued_at = queued_at
        self.dispatch_seq = 1 if state == "queued" else 0
        self.attempt = 0
        self.fence = 0
        self.worker_id: Any = None
        self.failures = 0
        self.losses = 0
        self.suspect = False
        self.held = False
        self.cancel_requested = False
        self.max_attempts = max_attempts
        self.on_lost = on_lost
        self.reason: str | None = None
        self.scheduled_for: float | None = None

    def become(self, state: str) -> None:
        """Move; only along a documented transition."""
        if state != self.state and state not in TRANSITIONS[self.state]:
            raise Violation(f"2: run {self.id} moves {self.state} → {state}, which the machine does not know")
        self.state = state

    @property
    def over(self) -> bool:
        return self.state in TERMINAL


class ModelDatabase:
    """All rows, and the statements. `now` is PostgreSQL's clock, set by whoever drives it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs: dict[Any, Run] = {}
        self.workers: dict[Any, str] = {}
        self.leases: dict[Any, int] = {}
        self.paused = False
        self.attempts: dict[tuple[Any, int], tuple[int, Any, str]] = {}  # (run, attempt) → (fence, worker, outcome)
        self.dead_letters: dict[Any, str] = {}  # run → open, replayed
        self.fence = 0
        self.epoch = 0
        self.holder: Any = None
        self.renewal = 0
        self.on_queued: Callable[[Run], None] = lambda _: None

    # ------------------------------------------------------------ workers

    def register(self, worker: Any) -> None:
        """register_worker: done again (its answer was lost), it changes nothing."""
        if worker not in self.workers:
            self.workers[worker] = "live"
            self.leases[worker] = 0

    def renew(self, worker: Any, held: Sequence[int]) -> tuple[list[int], list[int], list[int]] | None:
        """renew_lease: (cancel, lost, lacking) as fences; None for a worker that has ended."""
        if worker not in self.leases or self.workers[worker] not in {"live", "draining"}:
            return None
        self.leases[worker] += 1
        cancel: list[int] = []
        own = []
        for run in self.runs.values():
            if run.worker_id == worker:
                own.append(run.fence)
                if run.cancel_requested:
                    cancel.append(run.fence)
        return cancel, [fence for fence in held if fence not in own], [fence for fence in own if fence not in held]

    def drain(self, worker: Any) -> None:
        """drain_worker."""
        if self.workers.get(worker) == "live":
            self.workers[worker] = "draining"

    def leave(self, worker: Any) -> None:
        """leave_worker."""
        self.leases.pop(worker, None)
        if self.workers.get(worker) in {"live", "draining"}:
            self.workers[worker] = "left"

    def lease_numbers(self) -> dict[Any, SeenLease]:
        """lease_numbers: -1 for a live worker without a lease."""
        return {
            worker: SeenLease(self.leases.get(worker, -1), LEASE.ttl)
            for worker, state in self.workers.items()
            if state in {"live", "draining"}
        }

    def orphan_workers(self) -> list[Any]:
        """orphan_workers."""
        found = {run.worker_id for run in self.runs.values() if run.worker_id is not None}
        return [worker for worker in found if self.workers.get(worker) in {"dead", "left"}]

    # ------------------------------------------------------------ runs

    def insert(self, run: Run) -> None:
        """insert_once."""
        self.runs[run.id] = run
        if run.state == "queued":
            run.queued_at = self.now
            self.on_queued(run)

    def _take(self, worker: Any, run: Run) -> Run | None:
        """take_offers, for one run that matched its offer."""
        if self.paused:
            run.become("pending")
            run.queued_at = None
            return None
        if self.workers.get(worker) != "live":
            return None
        run.become("running")
        self.fence += 1
        run.attempt += 1
        run.fence = self.fence
        run.worker_id = worker
        return run

    def claim(self, worker: Any, offers: Iterable[tuple[Any, int]]) -> list[Run]:
        """claim: those that are still queued with this dispatch_seq, while the worker lives."""
        won = []
        for run_id, seq in offers:
            run = self.runs[run_id]
            if run.state == "queued" and run.dispatch_seq == seq and (taken := self._take(worker, run)):
                won.append(taken)
        return won

    def claim_waiting(self, worker: Any, limit: int, older_than: float) -> list[Run]:
        """claim_waiting: what has stood queued for so long."""
        waiting = [
            run for run in self.runs.values()
            if run.state == "queued" and run.queued_at is not None and run.queued_at <= self.now - older_than
        ]  # fmt: skip
        return [taken for run in waiting[:limit] if (taken := self._take(worker, run))]

    def finish(
        self, worker: Any, run_id: Any, fence: int, state: str, outcome: str, retry_in: float = 0.0
    ) -> str | None:
        """finish and already_finished: what the run became, "repeated", or None for an old fence."""
        run = self.runs[run_id]
        if run.fence != fence or run.state != "running":
            same = any(
                a[0] == fence and a[2] == outcome
                for n in range(run.attempt, 0, -1)
                if (a := self.attempts.get((run_id, n)))
            )
            return "repeated" if same else None
        cancelled = run.cancel_requested and state in {"pending", "failed", "dead_letter"}
        run.become("cancelled" if cancelled else state)
        if state == "pending":
            run.run_at = self.now + retry_in
            run.queued_at = None
        run.failures += outcome == "failed"
        run.losses += outcome == "lost"
        run.suspect = run.suspect and outcome == "requeued"
        run.worker_id = None
        self._record(run, worker, outcome)
        return run.state

    def _record(self, run: Run, worker: Any, outcome: str) -> None:
        key = (run.id, run.attempt)
        if key in self.attempts:
            raise Violation(f"2: attempt {run.attempt} of run {run.id} has a second outcome, {outcome}")
        self.attempts[key] = (run.fence, worker, outcome)
        if run.state == "dead_letter":
            self.dead_letters[run.id] = "open"

    def cancel(self, run_id: Any) -> str | None:
        """cancel_runs: the state that follows; None if the run had ended."""
        run = self.runs[run_id]
        if run.over:
            return None
        run.cancel_requested = True
        if run.state != "running":
            run.become("cancelled")
            run.dispatch_seq += 1
        return run.state

    def revive(self, run_id: Any) -> bool:
        """revive."""
        run = self.runs[run_id]
        if run.state not in {"failed", "cancelled", "skipped", "dead_letter"}:
            return False
        run.become("pending")
        run.run_at, run.queued_at = self.now, None
        run.failures = run.losses = 0
        run.suspect = run.cancel_requested = run.held = False
        run.dispatch_seq += 1
        if self.dead_letters.get(run_id) == "open":
            self.dead_letters[run_id] = "replayed"
        return True

    def hold(self, run_id: Any) -> None:
        """hold_runs, for one run."""
        run = self.runs[run_id]
        if run.state in {"pending", "queued"} and not run.held:
            run.become("pending")
            run.held = True
            run.queued_at = None
            run.dispatch_seq += 1

    def release(self, run_id: Any) -> None:
        """release_runs, for one run."""
        run = self.runs[run_id]
        if run.state == "pending":
            run.held = False

    # ------------------------------------------------------------ the leader

    def take_term(self, epoch: int, holder: Any, renewal: int, me: Any) -> int | None:
        """take_term: only if the row is as it was seen."""
        if (self.epoch, self.holder, self.renewal) != (epoch, holder, renewal):
            return None
        self.epoch += 1
        self.holder = me
        self.renewal += 1
        return self.epoch

    def renew_term(self, epoch: int, me: Any) -> bool:
        """renew_term."""
        if (self.epoch, self.holder) != (epoch, me):
            return False
        self.renewal += 1
        return True

    def release_term(self, epoch: int, me: Any) -> bool:
        """release_term."""
        if (self.epoch, self.holder) != (epoch, me):
            return False
        self.holder = None
        self.renewal += 1
        return True

    def promote(self, epoch: int, places: int) -> list[Run] | None:
        """promote: due runs become queued; None if another term leads."""
        if epoch != self.epoch:
            return None
        due = [r for r in self.runs.values() if r.state == "pending" and not r.held and r.run_at <= self.now][:places]
        for run in due:
            run.become("queued")
            run.dispatch_seq += 1
            run.queued_at = self.now
            self.on_queued(run)
        return due

    def withdraw_paused(self) -> int:
        """withdraw_paused."""
        found = [run for run in self.runs.values() if self.paused and run.state == "queued"]
        for run in found:
            run.become("pending")
            run.queued_at = None
            run.dispatch_seq += 1
        return len(found)

    def lost_runs(self, worker: Any) -> list[dict[str, Any]]:
        """lost_runs, for a worker that has ended."""
        return [
            {
                "run_id": run.id, "losses": run.losses, "suspect": run.suspect,
                "cancel_requested": run.cancel_requested, "on_lost": run.on_lost,
            }
            for run in self.runs.values() if run.worker_id == worker
        ]  # fmt: skip

    def reap(self, worker: Any, renewal: int) -> bool:
        """`Reaping.reap` as a whole; whether it ended the worker."""
        if self.leases.get(worker) != renewal:
            return False
        del self.leases[worker]
        applied = self.workers[worker] in {"live", "draining"}
        if applied:
            self.workers[worker] = "dead"
        lost = [Lost(**row) for row in self.lost_runs(worker)]
        self.write_losses(worker, [msgspec.structs.asdict(verdict) for verdict in judge_losses(lost)])
        return applied

    def write_losses(self, worker: Any, verdicts: Iterable[Mapping[str, Any]]) -> None:
        """write_losses: the verdicts on the runs that a dead worker was executing."""
        for verdict in verdicts:
            run = self.runs[verdict["run_id"]]
            if run.state != "running" or run.worker_id != worker:
                continue
            run.become(verdict["state"])
            run.reason, run.losses, run.suspect = verdict["reason"], verdict["losses"], verdict["suspect"]
            run.worker_id = None
            if run.state == "pending":
                run.run_at = self.now + verdict["retry_in"]
                run.queued_at = None
            self._record(run, worker, "lost")
