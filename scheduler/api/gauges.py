"""What `/metrics` shows of the system as a whole, as its leader last reported it. Every API shows the same."""

from __future__ import annotations

from scheduler.metrics import Metrics
from scheduler.wire.fleet import Leader
from scheduler.wire.report import LeaderReport


class Gauges:
    """Metrics that are read when somebody asks for them."""

    def __init__(self, metrics: Metrics) -> None:
        self._epoch = metrics.gauge("dts_leader_epoch", "The term of whoever leads, or led last.")
        self._silent = metrics.gauge("dts_leader_silent_seconds", "How long ago the leader renewed its term.")
        self._failing = metrics.gauge("dts_leader_failing", "1 for each part of the leader that fails.", "part")
        self._queued = metrics.gauge("dts_queue_queued", "Runs that are queued.", "namespace", "queue")
        self._due = metrics.gauge("dts_queue_due", "Runs that are due and wait.", "namespace", "queue")
        self._age = metrics.gauge(
            "dts_queue_oldest_due_seconds", "How long the oldest due run has waited.", "namespace", "queue"
        )

    def show(self, leader: Leader | None, report: LeaderReport | None) -> None:
        """Show this and nothing older: what is not known is left out."""
        for metric in (self._epoch, self._silent, self._failing, self._queued, self._due, self._age):
            metric.clear()
        if leader is not None:
            self._epoch.labels().set(leader.epoch)
            if leader.silent is not None:
                self._silent.labels().set(leader.silent)
        if report is not None:
            for name in report.failing:
                self._failing.labels(name).set(1)
            for depth in report.queues:
                key = depth.namespace, depth.queue
                self._queued.labels(*key).set(depth.queued)
                self._due.labels(*key).set(depth.due)
                self._age.labels(*key).set(depth.oldest_due_seconds)
