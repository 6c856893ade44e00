"""What the leader shows of its work: how deep each queue is, how old the oldest waiting run is, how long steps take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from scheduler.domain.clock import Clock
from scheduler.metrics import Metrics
from scheduler.pace import rest_after
from scheduler.store.reconcile import Reconcile

_EVERY: Final = 15.0  # seconds
_LIMIT: Final = 20_000  # runs counted in each lane: beyond that the gauge says "at least"

Step = Callable[[], Awaitable[float | None]]


class Gauges:
    """The metrics of the scheduler role."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._clock = clock
        self._leading = metrics.gauge("dts_scheduler_leading", "1 while this process leads.").labels()
        self._epoch = metrics.gauge("dts_scheduler_epoch", "The last term that this process led.").labels()
        self._queued = metrics.gauge("dts_queue_queued", "Runs that are queued.", "namespace", "queue")
        self._due = metrics.gauge("dts_queue_due", "Runs that are due and wait.", "namespace", "queue")
        self._age = metrics.gauge(
            "dts_queue_oldest_due_seconds", "How long the oldest due run has waited.", "namespace", "queue"
        )
        self._steps = metrics.histogram("dts_scheduler_step_seconds", "Duration of a step.", "step")
        self._last = metrics.gauge("dts_scheduler_last_step_timestamp_seconds", "When a step last succeeded.", "step")

    def led(self, epoch: int | None) -> None:
        """Note that this process leads under `epoch`, or (None) that it does not lead any more."""
        self._leading.set(0 if epoch is None else 1)
        if epoch is not None:
            self._epoch.set(epoch)

    def timed(self, name: str, step: Step) -> Step:
        """Return `step`, measured."""

        async def measured() -> float | None:
            began = self._clock.monotonic()
            delay = await step()
            self._steps.labels(name).observe(self._clock.monotonic() - began)
            self._last.labels(name).set(self._clock.now().timestamp())
            return delay

        return measured

    def backlog_step(self, reconcile: Reconcile) -> Step:
        """Return the step that counts what waits."""

        async def step() -> float:
            began = self._clock.monotonic()
            totals: dict[tuple[str, str], tuple[int, int, float]] = {}
            for lane in await reconcile.backlog(_LIMIT):
                key = lane.namespace, lane.queue
                queued, due, age = totals.get(key, (0, 0, 0.0))
                totals[key] = queued + lane.queued, due + lane.due, max(age, lane.oldest_age)
            for key, (queued, due, age) in totals.items():
                self._queued.labels(*key).set(queued)
                self._due.labels(*key).set(due)
                self._age.labels(*key).set(age)
            return rest_after(self._clock.monotonic() - began, _EVERY)

        return step
