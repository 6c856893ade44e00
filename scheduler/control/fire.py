"""Fire: planned fires that have come due are decided, recorded, and become runs.

Reading, deciding and writing go in batches, one statement each. Whatever somebody touched between reading and writing
is left as it was and comes again in the next batch, and so is what would make a batch too long: after an outage a task
may have a hundred runs to catch up with, each of which waits for all before it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Final
from uuid import UUID

import anyio.lowlevel
import asyncpg
import msgspec

from scheduler.broker import BrokerUnavailable
from scheduler.control.leading import Leading
from scheduler.control.plan import NewestFires, Planner, fires_of, rows_of, upstream_ids
from scheduler.domain.calendars import Calendar
from scheduler.domain.fires import Firing
from scheduler.domain.run import Queued
from scheduler.failpoints import Point, reach
from scheduler.pace import Pace
from scheduler.store.database import RETRYABLE
from scheduler.store.schedules import Cancelled, DueTask, Plan, Schedules, UnreadableTask, Upstream
from scheduler.telemetry import get_logger

SCHEDULES: Final = "scheduler.schedules"
"""The part of health that says whether every task that is due can be fired."""

_GIVE_WAY: Final = "overlap"
_ROWS: Final = 20_000  # rows to write that end a batch: what holds the loop up for longer holds up the term, too
_BREATH: Final = 20  # tasks that are decided without letting others go on
_AGAIN: Final = 10.0  # seconds after which a task that could not be fired is tried again, though it is what it was

_log = get_logger("fire")


class Firer:
    """The firing loop of one term."""

    def __init__(self, leading: Leading, schedules: Schedules) -> None:
        self._epoch = leading.epoch
        self._settings = leading.settings
        self._broker = leading.broker
        self._dispatch = leading.dispatch
        self._ids = leading.ids
        self._clock = leading.clock
        self._health = leading.health
        self._promote = leading.promote
        self._schedules = schedules
        self._pace = Pace(leading.settings.poll)
        self._unreadable = Unreadable()
        self._reported = ""

    async def step(self) -> float:
        """Decide about one batch of due tasks; return when there will be more. Raises TermLost, StoreUnavailable."""
        began = self._clock.monotonic()
        due, unreadable = await self._schedules.due(self._settings.batch, self._unreadable.versions(began))
        for task in unreadable:
            self._note(task, task.error)
        more = len(due) + len(unreadable) == self._settings.batch
        if due:
            decided, cut = await self._decide(due, await self._calendars(due))
            fired = await self._fire(decided)
            more = (more or cut) and (fired or not decided)  # else somebody holds them all
        self._unreadable.expire(began)
        self._report()
        if more:
            return 0.0
        return self._pace.until(await self._schedules.next_fire(self._unreadable.versions(self._clock.monotonic())))

    async def _fire(self, decided: Sequence[tuple[DueTask, Firing]]) -> bool:
        """Write what was decided; say whether anything of it still was as it had been read."""
        planner = Planner(self._ids, await self._places(), *await self._upstreams(decided))
        plans = self._plan(planner, decided)
        await reach(Point.FIRE_DECIDED)
        written = await self._write(plans)
        await reach(Point.FIRE_WRITTEN)
        done = [plan for plan in plans if plan.task.id in written]
        await self._offer([run for plan in done for run in _queued(plan)])
        await self._settle(done)  # which may wait for somebody's lock
        if any(run.state == "pending" for plan in done for run in plan.runs):
            self._promote()
        return bool(done)

    async def _calendars(self, due: Sequence[DueTask]) -> Mapping[tuple[str, str], Calendar]:
        wanted = {(task.namespace, name) for task in due for name in task.spec.calendars}
        return await self._schedules.calendars.find(sorted(wanted))

    async def _decide(
        self, due: Sequence[DueTask], calendars: Mapping[tuple[str, str], Calendar]
    ) -> tuple[list[tuple[DueTask, Firing]], bool]:
        """Decide about tasks until there is enough to write; say whether some are left."""
        decided: list[tuple[DueTask, Firing]] = []
        rows = 0
        for number, task in enumerate(due, 1):
            if rows >= _ROWS:
                return decided, True
            with self._noted_if_unreadable(task):
                firing = fires_of(task, calendars)
                decided.append((task, firing))
                rows += rows_of(task, firing)
            if number % _BREATH == 0:
                await anyio.lowlevel.checkpoint()
        return decided, False

    def _plan(self, planner: Planner, decided: Sequence[tuple[DueTask, Firing]]) -> list[Plan]:
        plans = []
        for task, firing in decided:
            with self._noted_if_unreadable(task):
                plans.append(planner.plan(task, firing))
        self._unreadable.read(plan.task.id for plan in plans)
        return plans

    @contextmanager
    def _noted_if_unreadable(self, task: DueTask) -> Iterator[None]:
        """Leave a task for later if its schedule, or one that it depends on, is none: it must not stop the others."""
        try:
            yield
        except ValueError as error:
            self._note(task, str(error))

    def _note(self, task: DueTask | UnreadableTask, error: str) -> None:
        if self._unreadable.note(task.id, task.version, self._clock.monotonic() + _AGAIN):
            _log.error("unreadable schedule", task=str(task.id), error=error)

    def _report(self) -> None:
        detail = self._unreadable.summary()
        if detail != self._reported:
            self._health.report(SCHEDULES, not detail, detail)
            self._reported = detail

    async def _places(self) -> Places:
        """Return the places that runs may take which need not wait for promotion: none where others wait already."""
        lanes = [lane.lane for lane in await self._dispatch.lanes() if not lane.paused]
        try:
            stats = await self._broker.stats(lanes)
        except BrokerUnavailable:
            return Places({})
        return Places(
            {
                (lane, priority): self._settings.window - ready
                for lane, of_lane in stats.items()
                if of_lane.open
                for priority, ready in enumerate(of_lane.ready)
            }
        )

    async def _upstreams(
        self, decided: Sequence[tuple[DueTask, Firing]]
    ) -> tuple[Mapping[UUID, Upstream], NewestFires]:
        """Look up what the tasks depend on, where they make runs."""
        wanted = {
            (upstream_id, fire.scheduled_for)
            for task, firing in decided
            if task.spec.depends_on
            for fire in firing.fires
            if fire.run_at is not None
            for upstream_id in upstream_ids(task.spec)
        }
        if not wanted:
            return {}, {}
        upstreams = await self._schedules.upstreams(sorted({upstream_id for upstream_id, _ in wanted}))
        return upstreams, await self._schedules.newest_fires(sorted(wanted))

    async def _write(self, plans: Sequence[Plan]) -> set[UUID]:
        """Write all plans; return the tasks that were still as they had been read."""
        written = await self._insist([plan for plan in plans if not plan.cancel], self._write_plain)
        written |= await self._insist([plan for plan in plans if plan.cancel], self._write_giving_way)
        return written

    async def _write_plain(self, plans: Sequence[Plan]) -> set[UUID]:
        return await self._schedules.write(self._epoch, plans)

    async def _write_giving_way(self, plans: Sequence[Plan]) -> set[UUID]:
        written, cancelled = await self._schedules.write_and_cancel(self._epoch, plans, _GIVE_WAY)
        await self._tell_workers(cancelled)
        return written

    async def _insist(
        self, plans: Sequence[Plan], write: Callable[[Sequence[Plan]], Awaitable[set[UUID]]]
    ) -> set[UUID]:
        while True:
            if not plans:
                return set()
            try:
                return await write(plans)
            except asyncpg.UniqueViolationError:
                plans = _without(plans, await self._schedules.decided_fires(plans))
            except RETRYABLE:
                continue

    async def _settle(self, plans: Sequence[Plan]) -> None:
        """Bring new edges up to date, and the edges that waited for these fires."""
        edges = [edge for plan in plans for run in plan.runs for edge in run.edges or ()]
        on_runs = {edge.upstream_run_id for edge in edges if edge.upstream_run_id is not None}
        on_fires = {edge.upstream_task_id for edge in edges if edge.upstream_run_id is None}
        settled = await self._schedules.settle_written(self._epoch, sorted(on_runs))
        bound = await self._schedules.bind_edges(self._epoch, sorted(on_fires | {plan.task.id for plan in plans}))
        if settled.ready or bound.ready:
            self._promote()

    async def _tell_workers(self, cancelled: Cancelled) -> None:
        if cancelled.settled.ready:
            self._promote()
        with suppress(BrokerUnavailable):
            for run_id, worker_id in cancelled.requested:
                await self._broker.publish(f"worker:{worker_id}", str(run_id).encode())

    async def _offer(self, queued: Sequence[Queued]) -> None:
        if queued:
            with suppress(BrokerUnavailable):  # workers find them in PostgreSQL, or the reconciler pushes them later
                await self._broker.push(queued)


class Unreadable:
    """Tasks that cannot be fired as they are defined. Each is left for later: for a while, or until it is redefined.

    It may become readable as it is, too: when there are newer zones, or when a task that it depends on was mended.
    Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._noted: dict[UUID, tuple[int, float]] = {}

    def note(self, task_id: UUID, version: int, until: float) -> bool:
        """Leave this version of a task for later; False if that was known."""
        known = self._noted.get(task_id)
        self._noted[task_id] = (version, until)
        return known is None or known[0] != version

    def read(self, task_ids: Iterable[UUID]) -> None:
        """Note that these can be read. If one could not be before, others may wait for it: none is left for later."""
        if any(task_id in self._noted for task_id in task_ids):
            self._noted.clear()

    def versions(self, now: float) -> dict[UUID, int]:
        """Return the versions that are still left for later."""
        return {task_id: version for task_id, (version, until) in self._noted.items() if now < until}

    def expire(self, now: float) -> None:
        """Forget those whose time was over at `now`: they have been tried since, or are no longer due."""
        self._noted = {task_id: noted for task_id, noted in self._noted.items() if now < noted[1]}

    def summary(self) -> str:
        """Return a line about all, empty if there are none."""
        if not self._noted:
            return ""
        return f"{len(self._noted)} tasks cannot be fired as they are defined: {min(self._noted)}…"


class Places:
    """How many more runs of each (lane, priority) may be queued without waiting for promotion."""

    def __init__(self, left: dict[tuple[str, int], int]) -> None:
        self._left = left

    def __call__(self, lane: str, priority: int) -> bool:
        """Take a place; False if there is none."""
        left = self._left.get((lane, priority), 0)
        if left <= 0:
            return False
        self._left[lane, priority] = left - 1
        return True


def _queued(plan: Plan) -> list[Queued]:
    return [
        Queued(run_id=run.id, lane=run.lane, priority=run.priority, run_at=run.run_at, seq=1, traceparent=None)
        for run in plan.runs
        if run.state == "queued"
    ]


def _without(plans: Sequence[Plan], decided: set[tuple[UUID, datetime]]) -> list[Plan]:
    """Return the plans without fires that were decided before, and without the runs of such fires."""
    return [
        msgspec.structs.replace(
            plan,
            fires=[fire for fire in plan.fires if (plan.task.id, fire.scheduled_for) not in decided],
            runs=[run for run in plan.runs if (plan.task.id, run.scheduled_for) not in decided],
        )
        for plan in plans
    ]
