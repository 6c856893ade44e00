"""Leading: every duty of the leader, in a group that lives exactly as long as the term."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec

from scheduler.control.election import Term
from scheduler.control.fire import SCHEDULES, Firer
from scheduler.control.leading import Leading
from scheduler.control.observe import Observer
from scheduler.control.promote import Promoter
from scheduler.control.reap import Reaper
from scheduler.control.reconcile import Reconciler
from scheduler.control.report import Reporter
from scheduler.control.retain import HISTORY, Keeper
from scheduler.control.seal import Sealer
from scheduler.control.unfold import WORKFLOWS, Unfolder
from scheduler.service import Service, Wake
from scheduler.store.audit import Audit
from scheduler.store.database import Database
from scheduler.store.history import History
from scheduler.store.reaping import Reaping
from scheduler.store.reconcile import Reconcile
from scheduler.store.schedules import Schedules
from scheduler.store.terms import Terms
from scheduler.store.unfolding import Unfolding

Step = Callable[[], Awaitable[float | None]]


class Wakes(msgspec.Struct, frozen=True):
    """What the outside may wake; harmless while nothing leads."""

    fire: Wake = msgspec.field(default_factory=Wake)
    promote: Wake = msgspec.field(default_factory=Wake)
    reap: Wake = msgspec.field(default_factory=Wake)
    unfold: Wake = msgspec.field(default_factory=Wake)
    reconcile: Wake = msgspec.field(default_factory=Wake)

    def work(self) -> None:
        """Something was created, changed or became ready."""
        self.fire.set()
        self.ready()

    def returned(self) -> None:
        """Redis is back: nobody could wake us meanwhile, and it may have lost something."""
        self.work()
        self.reconcile.set()

    def ready(self) -> None:
        """Wake whoever takes runs that need wait no more."""
        self.promote.set()
        self.unfold.set()


class Reign:
    """Builds the duties of a term and runs them until it is over."""

    def __init__(
        self, *, database: Database, observer: Observer, wakes: Wakes, leading: Callable[[int], Leading]
    ) -> None:
        self._observer = observer
        self._wakes = wakes
        self._leading = leading
        self._schedules = Schedules(database)
        self._reconcile = Reconcile(database)
        self._history = History(database)
        self._audit = Audit(database)
        self._database = database

    async def run(self, term: Term) -> None:
        """Lead until `term.over`; a planned end lets the steps under way finish."""
        leading = self._leading(term.epoch)
        names: list[str] = []
        try:
            async with Service("leader", health=leading.health) as duties:
                for name, step, wake in self._duties(leading):
                    duties.loop(name, step, wake=wake, on_error=term.notice)
                    names.append(f"leader.{name}")
                await term.over.wait()
                if term.planned:
                    await duties.drain(leading.settings.drain)
        finally:
            for name in (*names, SCHEDULES, WORKFLOWS, HISTORY):
                leading.health.forget(name)
            term.handed_over.set()

    def _duties(self, leading: Leading) -> Iterable[tuple[str, Step, Wake]]:
        reaping = Reaping(self._database, leading.ids)
        yield "fire", Firer(leading, self._schedules).step, self._wakes.fire
        yield "promote", Promoter(leading).step, self._wakes.promote
        yield "unfold", Unfolder(leading, Unfolding(self._database, leading.ids)).step, self._wakes.unfold
        yield "reap", Reaper(leading, reaping, self._observer).step, self._wakes.reap
        yield "reconcile", Reconciler(leading, self._reconcile, self._schedules).step, self._wakes.reconcile
        yield "retain", Keeper(leading, self._history).step, Wake()
        yield "seal", Sealer(leading, self._audit).step, Wake()
        reporter = Reporter(leading, Terms(self._database), self._reconcile)
        yield "count", reporter.count, Wake()
        yield "report", reporter.tell, Wake()
