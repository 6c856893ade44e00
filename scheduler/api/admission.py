"""How much may wait, in all and in each namespace: beyond `max_pending` nothing is taken, instead of drowning later.

Counting a large backlog is dear (half a second for each million), so it is counted only when it could have reached
the bound: what was counted last plus all that was taken since (and, for what other processes take, once a minute), and
after a dear count not again for a while. Of all that waits, not even then, if the indexes that it stands in are too
small for so much. How fast a namespace may submit is bounded by each process for itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from scheduler.api.settings import ApiSettings
from scheduler.api.tenancy import Tenancy
from scheduler.domain.bucket import Bucket, Rate
from scheduler.domain.clock import Clock
from scheduler.domain.errors import Overloaded, TooMany
from scheduler.metrics import Metrics
from scheduler.pace import rest_after
from scheduler.service import Wake
from scheduler.store.database import PASSING
from scheduler.store.namespaces import Namespaces
from scheduler.store.queues import Queues

_RECOUNT = 60.0  # seconds
_BURST = 10.0  # seconds' worth of a namespace's rate

Count = Callable[[int], Awaitable[int]]
Ceiling = Callable[[], Awaitable[int]]


class _Backlog:
    """An upper estimate of what waits, in all or in one namespace. `ceiling` is a cheap one, if there is one."""

    def __init__(self, count: Count, ceiling: Ceiling | None = None) -> None:
        self._count = count
        self._ceiling = ceiling
        self._estimate = 0
        self._meanwhile = 0  # taken since the last count began
        self._wanted = False
        self._not_before = 0.0
        self._due = 0.0

    def has_room(self, bound: int, count: int) -> bool:
        return self._estimate + count <= bound

    def take(self, bound: int, count: int) -> bool:
        """Take runs into account; say whether it is time to count."""
        self._estimate += count
        self._meanwhile += count
        if _near(self._estimate, bound):
            self._wanted = True
        return self._wanted

    def want(self) -> None:
        """Ask for a count as soon as that is fair."""
        self._wanted = True

    def next_count(self) -> float:
        """Return when to count next, in monotonic seconds."""
        return self._not_before if self._wanted else max(self._due, self._not_before)

    async def recount(self, bound: int, clock: Clock) -> None:
        """Count. Raises what counting raises; then the estimate stands, and it is counted again as soon as is fair."""
        started = clock.monotonic()
        self._wanted = False
        # What was taken shortly before may not be committed yet: rather count some twice than miss some.
        before, self._meanwhile = self._meanwhile, 0
        try:
            counted = None if self._ceiling is None else await self._ceiling()
            if counted is None or _near(counted, bound):
                counted = await self._count(bound + 1)
            self._estimate = counted + before + self._meanwhile
        except Exception:
            self._meanwhile += before
            self._wanted = True
            raise
        finally:
            took = clock.monotonic() - started
            self._not_before = started + took + rest_after(took, 0.0)
            self._due = started + took + rest_after(took, _RECOUNT)


def _near(waiting: int, bound: int) -> bool:
    return waiting * 10 > bound * 9


class Admission:
    """Decides whether more runs are taken; `step` counts what waits, run by a loop over `wake`."""

    def __init__(
        self,
        queues: Queues,
        namespaces: Namespaces,
        tenancy: Tenancy,
        clock: Clock,
        settings: ApiSettings,
        metrics: Metrics,
    ) -> None:
        self.wake = Wake()
        self._namespaces = namespaces
        self._tenancy = tenancy
        self._clock = clock
        self._bound = settings.max_pending
        self._all = _Backlog(queues.waiting, queues.waiting_at_most)
        self._own: dict[str, _Backlog] = {}
        self._buckets: dict[str, Bucket] = {}
        self._taken = metrics.counter("dts_runs_submitted_total", "Runs that were taken.", "namespace")
        self._refused = metrics.counter(
            "dts_runs_refused_total", "Runs that were not taken, by what was exhausted.", "namespace", "bound"
        )

    def admit(self, namespace: str, count: int) -> None:
        """Take `count` more runs of a namespace into account. Raises Overloaded or TooMany, counting nothing."""
        quotas = self._tenancy.quotas(namespace)
        own = None
        if quotas.max_pending is not None:
            own = self._backlog(namespace)
            self._demand_room(own, quotas.max_pending, namespace, count, "namespace")
        self._demand_room(self._all, self._bound, namespace, count, "installation")
        if quotas.submit_rate is not None:
            self._demand_rate(namespace, quotas.submit_rate, count)
        self._taken.labels(namespace).inc(count)
        count_now = self._all.take(self._bound, count)
        if own is not None:
            count_now = own.take(quotas.max_pending or 0, count) or count_now
        if count_now:
            self.wake.set()

    async def step(self) -> float | None:
        """Count what waits, where it is worth it; one count that fails keeps nothing else from being counted."""
        known = self._tenancy.known
        bounds = {name: of.max_pending for name, of in known.items() if of.max_pending is not None}
        for name in self._own.keys() - bounds.keys():
            del self._own[name]
        backlogs = [(self._all, self._bound), *((self._backlog(name), bound) for name, bound in bounds.items())]
        failure: Exception | None = None
        for backlog, bound in backlogs:
            if backlog.next_count() <= self._clock.monotonic():
                try:
                    await backlog.recount(bound, self._clock)
                except PASSING as error:
                    failure = failure or error
        if failure is not None:
            raise failure
        return max(0.0, min(backlog.next_count() for backlog, _ in backlogs) - self._clock.monotonic())

    def _backlog(self, namespace: str) -> _Backlog:
        backlog = self._own.get(namespace)
        if backlog is None:
            backlog = self._own[namespace] = _Backlog(lambda bound: self._namespaces.waiting(namespace, bound))
            self.wake.set()
        return backlog

    def _demand_room(self, backlog: _Backlog, bound: int, namespace: str, count: int, what: str) -> None:
        if not backlog.has_room(bound, count):
            backlog.want()
            self.wake.set()
            self._refused.labels(namespace, what).inc(count)
            whose = f"of the namespace {namespace} " if what == "namespace" else ""
            raise Overloaded(f"too many runs {whose}wait already; at most {bound} may", 5.0)

    def _demand_rate(self, namespace: str, per_second: float, count: int) -> None:
        now, rate = self._clock.monotonic(), Rate(per_second, max(1.0, per_second * _BURST))
        bucket = self._buckets.get(namespace)
        if bucket is None:
            bucket = self._buckets[namespace] = Bucket(rate, now)
        if wait := bucket.take(rate, now, count):
            self._refused.labels(namespace, "rate").inc(count)
            raise TooMany(f"the namespace {namespace} may submit {per_second:g} runs a second", wait)
