"""A scheduler: it watches the term and the leases, and acts while it leads.

Decided by `scheduler.domain`: TermWatch, TermLease, LeaseObserver, admit. Reaping is `scheduler.store.reaping.Reaping`,
statement by statement, each of which may be lost or be the last before the process stops.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

from scheduler.domain.ids import IdSource
from scheduler.domain.observation import Expired, LeaseObserver
from scheduler.domain.overlap import admit
from scheduler.domain.term import TermLease, TermLost, TermReading, TermWatch
from scheduler.store.database import Database, StoreUnavailable
from scheduler.store.reaping import Reaping
from tests.model.database import Run, Violation
from tests.model.world import AWAY, TERM_TTL, WAIT, Process, Transaction, World

IDLE_LIMIT = 0.6 * TERM_TTL
"""`idle_in_transaction_session_timeout` and `lock_timeout` of a leader."""


class _Statement:
    """Something to await: a named statement, or the end of the transaction."""

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name = name
        self.args = args

    def __await__(self) -> Any:
        return (yield self)


class _Executor:
    async def fetchval(self, name: str, *args: Any) -> Any:
        return await _Statement(name, args)

    fetch = fetchval


class _Ids:
    @staticmethod
    def one() -> int:
        return 0


class ReapDatabase:
    """What `Reaping` takes for a database: each statement is left to whoever drives the coroutine."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[_Executor]:
        yield _Executor()
        await _Statement("end", ())


REAPING = Reaping(cast("Database", ReapDatabase()), cast("IdSource", _Ids()))


class Reap:
    """One run of `Reaping.reap`, driven statement by statement in a process."""

    def __init__(
        self,
        model: Any,
        process: Process,
        worker: Any,
        renewal: int | None,
        epoch: int | None,
        then: Callable[[bool], None],
    ) -> None:
        self.model = model
        self.world: World = model.world
        self.process = process
        self.worker = worker
        self.renewal = renewal
        self.then = then
        self.transaction: Transaction | None = None
        self.verdicts: list[dict[str, Any]] = []
        self.lost: list[Any] = []
        if "lease number not compared" in self.world.bugs:
            renewal = None
        self.coroutine: Coroutine[Any, Any, Any] = REAPING.reap(worker, renewal=renewal, epoch=epoch)
        self._step(None)

    def _step(self, value: Any) -> None:
        try:
            statement = self.coroutine.throw(StoreUnavailable("away")) if value is AWAY else self.coroutine.send(value)
        except StopIteration:
            self.then(True)
            return
        except (TermLost, StoreUnavailable):
            if self.transaction is not None:
                self.world.end(self.transaction, commit=False)
            self.then(False)
            return
        self.world.ask(self.process, lambda: self._execute(statement.name, statement.args), self._step)

    def _execute(self, name: str, args: tuple[Any, ...]) -> Any:
        world = self.world
        if self.transaction is None:
            self.transaction = world.begin(self.process)
            self._watch_idling(self.transaction)
        transaction = self.transaction
        if not transaction.open:
            return AWAY
        transaction.touched = world.steps
        return getattr(self, f"_{name}")(transaction, *args)

    def _hold_term(self, transaction: Transaction, epoch: int) -> Any:
        if "term not held" in self.world.bugs:
            transaction.on_commit.append(lambda: self.model.led(epoch))
        elif self.model.database.epoch != epoch:
            return None
        else:
            transaction.epoch = epoch
        return True

    def _end_lease(self, transaction: Transaction, worker: Any, renewal: int | None) -> Any:
        if self.world.locked(worker=worker, by=transaction):
            return WAIT
        leases = self.model.database.leases
        number = leases.get(worker)
        if number is None or (renewal is not None and number != renewal):
            return None
        transaction.worker = worker
        transaction.on_commit.append(lambda: leases.pop(worker, None))
        return worker

    def _bury_worker(self, transaction: Transaction, worker: Any, _: str) -> Any:
        if self.world.locked(worker=worker, by=transaction):
            return WAIT
        transaction.worker = worker
        workers = self.model.database.workers
        if workers.get(worker) not in {"live", "draining"}:
            return None
        if "incarnation not flipped" not in self.world.bugs:
            transaction.on_commit.append(lambda: workers.__setitem__(worker, "dead"))
        return worker

    def _lost_runs(self, transaction: Transaction, worker: Any) -> Any:
        rows = self.model.database.lost_runs(worker)
        if any(self.world.locked(run=row["run_id"], by=transaction) for row in rows):
            return WAIT
        transaction.runs.update(row["run_id"] for row in rows)
        self.lost = [row["run_id"] for row in rows]
        return [row | {"run_id": self.model.uuids[number], "rules": None} for number, row in enumerate(rows)]

    def _write_losses(self, _transaction: Transaction, _worker: Any, runs: Any, *columns: Any) -> list[Any]:
        names = ("state", "reason", "losses", "suspect", "retry_in")
        for uuid, *values in zip(runs, *columns[:-1], strict=True):
            verdict = dict(zip(names, values, strict=True))
            self.verdicts.append(verdict | {"run_id": self.lost[self.model.uuids.index(uuid)]})
        return []

    def _end(self, transaction: Transaction) -> None:
        if transaction.worker is not None:
            transaction.on_commit.append(self._commit)
        self.world.end(transaction, commit=True)

    def _commit(self) -> None:
        self.model.reaped(self.worker, self.renewal, self.verdicts)
        self.model.database.write_losses(self.worker, self.verdicts)

    def _watch_idling(self, transaction: Transaction) -> None:
        """A session that idles in its transaction is ended, and its connection breaks with its process."""
        generation, touched = self.process.generation, -1

        def look() -> None:
            nonlocal touched
            if transaction.open:
                if self.process.generation != generation or transaction.touched == touched:
                    self.world.end(transaction, commit=False)
                else:
                    touched = transaction.touched
                    self.world.at(self.world.now + IDLE_LIMIT, None, look)

        self.world.at(self.world.now + IDLE_LIMIT, None, look)


class Scheduler:
    """One candidate, and the leader while it holds a term."""

    def __init__(self, model: Any, number: int) -> None:
        self.model = model
        self.world: World = model.world
        self.number = number
        self.process = Process(f"scheduler {number}")
        self.boot()

    def boot(self) -> None:
        """Start anew: a new candidate that has seen nothing."""
        self.me = self.model.next_holder()
        self.epoch: int | None = None
        self.lease: TermLease | None = None
        self.watch = TermWatch(TERM_TTL, self.me)
        gap = 1e9 if "gaps count" in self.world.bugs else 2.0
        self.observer = LeaseObserver(max_gap=gap)
        self.reaping: set[Any] = set()
        self.taking = self.renewing = False
        self.world.at(self.world.now + 0.01 + self.world.random(), self.process, self._tick)

    def kill(self, lasts: float) -> None:
        """Kill and, later, start again."""
        self.process.generation += 1
        self.process.stopped_until = 0.0
        self.epoch = None
        self.world.at(self.world.now + lasts, self.process, self.boot)

    # ------------------------------------------------------------ looking

    def _tick(self) -> None:
        world, database = self.world, self.model.database
        self.world.at(world.now + 1.2 + 0.3 * world.random(), self.process, self._tick)
        if self.epoch is not None and self.lease is not None and self.lease.remaining(world.now) <= 0:
            self._step_down()
        sent = world.now
        if world.slow and world.random() < world.slow:
            world.ask(
                self.process,
                lambda: (database.lease_numbers(), TermReading(database.epoch, database.holder, database.renewal)),
                lambda read: None if read is AWAY else self._seen(read[0], read[1], sent),
            )
        elif world.database_down_until <= sent and self.process.asking_cut <= sent and self.process.answers_cut <= sent:
            self._seen(database.lease_numbers(), TermReading(database.epoch, database.holder, database.renewal), sent)

    def _seen(self, renewals: dict[Any, int], reading: TermReading, sent: float) -> None:
        now = self.world.now
        expired = self.observer.observe(renewals, sent=sent, received=now)
        if self.epoch is None:
            if not self.taking and self.watch.observe(reading, sent=sent, received=now) <= 0:
                self._take(reading)
            return
        self._renew_term()
        for found in expired:
            self._reap(found.worker_id, found)
        for worker in self.model.database.orphan_workers():
            self._reap(worker, None)
        self._lead()

    # ------------------------------------------------------------ the term

    def _take(self, seen: TermReading) -> None:
        world, database, sent = self.world, self.model.database, self.world.now
        self.taking = True
        patient_until = sent + 1.0

        def take() -> Any:
            holding = [t for t in world.transactions if t.epoch is not None]
            if holding and "term not held" not in world.bugs:
                if world.now < patient_until:
                    world.at(patient_until, None, clear_the_way)
                    return WAIT
                clear_the_way()
            return database.take_term(seen.epoch, seen.holder, seen.renewal, self.me)

        def clear_the_way() -> None:
            for transaction in [t for t in world.transactions if t.epoch is not None]:
                world.end(transaction, commit=False)

        def done(epoch: Any) -> None:
            self.taking = False
            if epoch is not AWAY and epoch is not None:
                self.epoch = epoch
                self.lease = TermLease(TERM_TTL, sent=sent)
                self.watch = TermWatch(TERM_TTL, self.me)
                if world.trace is not None:
                    world.say(f"scheduler {self.number} leads epoch {epoch}")
                if self.lease.remaining(world.now) <= 0:
                    self._step_down()

        world.ask(self.process, take, done, patience=TERM_TTL)

    def _renew_term(self) -> None:
        if self.renewing:
            return
        epoch, lease, sent = self.epoch, self.lease, self.world.now
        assert lease is not None
        self.renewing = True

        def done(held: Any) -> None:
            self.renewing = False
            if self.epoch == epoch:
                if held is AWAY:
                    return
                if held:
                    lease.confirmed(sent=sent)
                else:
                    self._step_down()

        self.world.ask(self.process, lambda: self.model.database.renew_term(epoch, self.me), done, patience=1.0)

    def _step_down(self) -> None:
        if self.world.trace is not None:
            self.world.say(f"scheduler {self.number} steps down from epoch {self.epoch}")
        self.epoch = None

    # ------------------------------------------------------------ leading

    def _reap(self, worker: Any, found: Expired | None) -> None:
        if worker in self.reaping or self.epoch is None:
            return
        self.reaping.add(worker)
        reaping = self.reaping
        if self.world.trace is not None:
            self.world.say(f"scheduler {self.number} reaps incarnation {worker}")
        Reap(
            self.model, self.process, worker, None if found is None else found.renewal, self.epoch,
            lambda _: reaping.discard(worker),
        )  # fmt: skip

    def _lead(self) -> None:
        model, database, now = self.model, self.model.database, self.world.now
        epoch = self.epoch
        if any(r.state == "pending" and not r.held and r.run_at <= now for r in database.runs.values()):
            self._write(epoch, lambda: database.promote(database.epoch, 100))
        if model.next_fire is not None and model.next_fire <= now:
            planned = model.next_fire
            active = sum(r.scheduled_for is not None and not r.over for r in database.runs.values())
            self._write(epoch, lambda: self._fire(planned, active))

    def _write(self, epoch: int | None, change: Callable[[], Any]) -> None:
        """One statement of the leader: it holds its epoch from its beginning to its commit."""
        world, model = self.world, self.model

        def begin() -> Any:
            if "term not held" not in world.bugs and model.database.epoch != epoch:
                return None
            transaction = world.begin(self.process)
            if "term not held" not in world.bugs:
                transaction.epoch = epoch
            transaction.on_commit.append(lambda: (model.led(epoch), change()))
            if world.random() < world.slow:
                world.at(world.now + 3 * world.random(), None, lambda: world.end(transaction, commit=True))
            else:
                world.end(transaction, commit=True)
            return None

        world.ask(self.process, begin, lambda _: None)

    def _fire(self, planned: float, active: int) -> None:
        """write_fires: guarded by the fire that the task was read with; a fire is decided once."""
        model = self.model
        if "fires not guarded" not in self.world.bugs and (model.next_fire != planned or planned in model.fires):
            return
        if planned in model.fires:
            raise Violation(f"3: the fire of {planned} is decided twice")
        later = [moment for moment in self.world.plan.fires if moment > planned]
        model.next_fire = later[0] if later else None
        refused = admit("skip", active).refused
        model.fires[planned] = "fired" if refused is None else f"skipped:{refused}"
        if refused is None:
            run = Run(model.next_run(), "pending", planned)
            run.scheduled_for = planned
            model.add(run, self.world.plan.jobs[0])
        model.look_for_the_end()
