"""How the system is: probes for supervisors, the whole picture for people, metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar

import anyio
import msgspec

from scheduler import __version__
from scheduler.api.context import Context
from scheduler.api.requests import Request
from scheduler.api.responses import Reply, answer
from scheduler.api.routing import Route, probe
from scheduler.broker import BrokerUnavailable
from scheduler.domain.access import OPEN
from scheduler.domain.blockers import LEADER_SILENT_AFTER
from scheduler.store import migrate
from scheduler.store.database import StoreUnavailable
from scheduler.wire.fleet import Leader
from scheduler.wire.health import DeepHealth, Dependency, Liveness, Part, Readiness
from scheduler.wire.report import LeaderReport

_T = TypeVar("_T")
_PATIENCE = 2.0  # seconds for each question
_REPORT_OUTDATED = 60.0  # seconds
_ALIVE = msgspec.json.encode(Liveness(status="ok"))


async def live(api: Context, request: Request) -> Reply:  # noqa: ARG001 - every handler takes both
    """Say that this process answers; asks nobody."""
    return Reply(_ALIVE)


async def ready(api: Context, request: Request) -> Reply:  # noqa: ARG001 - every handler takes both
    """200 while a POST would be accepted: database reachable, schema current, not stopping."""
    current, _ = await _ask(lambda: migrate.is_current(api.database))
    leader, _ = await _ask(api.queues.leader)
    workers, _ = await _ask(api.queues.live_workers)
    if api.stopping.is_set():
        status = "stopping"
    elif current is None:
        status = "unavailable"
    else:
        status = "ok" if current else "starting"
    body = Readiness(
        status=status,  # type: ignore[arg-type]  # one of the literals above
        database=current is not None,
        schema=bool(current),
        leader=_leads(leader),
        workers=workers or 0,
    )
    return answer(body, 200 if status == "ok" else 503)


async def deep(api: Context, request: Request) -> Reply:  # noqa: ARG001 - every handler takes both
    """Everything that this process knows: the leader, the latency of each dependency, its own parts."""
    current, database = await _ask(lambda: migrate.is_current(api.database))
    _, redis = await _ask(api.broker.ping)
    leader, _ = await _ask(api.queues.leader)
    workers, _ = await _ask(api.queues.live_workers)
    report, _ = await _ask(api.queues.leader_report)
    parts = {
        name: Part(ok=part.ok, detail=part.detail, since=part.since, failures=part.failures)
        for name, part in api.health.snapshot().items()
    }
    leader_parts = _failing(report, api.clock.now()) if _leads(leader) else {}
    status = "unavailable" if current is None else "ok"
    if status == "ok" and not (
        current
        and redis.ok
        and _leads(leader)
        and workers
        and all(p.ok for p in (*parts.values(), *leader_parts.values()))
    ):
        status = "degraded"
    body = DeepHealth(
        status=status,  # type: ignore[arg-type]  # one of the literals above
        now=api.clock.now(),
        version=__version__,
        dependencies={"database": database, "redis": redis},
        leader=leader,
        workers=workers,
        parts=parts,
        leader_parts=leader_parts,
    )
    return answer(body, 503 if status == "unavailable" else 200)


async def metrics(api: Context, request: Request) -> Reply:  # noqa: ARG001 - every handler takes both
    """Return the metrics of this process, and the leader's report, in Prometheus' text format."""
    leader, _ = await _ask(api.queues.leader)
    report, _ = await _ask(api.queues.leader_report)
    api.gauges.show(leader, None if report is None else report[0])
    body, headers = api.metrics.render()
    return Reply(body, 200, headers["Content-Type"].encode())


def _failing(report: tuple[LeaderReport, float] | None, now: datetime) -> dict[str, Part]:
    """Return the parts of the leader that fail: one of them, if it is so, that it does not tell of them any more."""
    if report is None:  # its term has only begun, or it is of a release that tells nothing
        return {}
    told, age = report
    if age < _REPORT_OUTDATED:
        return told.failing
    detail, since = f"nothing was reported for {age:.0f} s", now - timedelta(seconds=age)
    return told.failing | {"leader.report": Part(ok=False, detail=detail, since=since, failures=1)}


def _leads(leader: Leader | None) -> bool:
    return (
        leader is not None
        and leader.holder is not None
        and leader.silent is not None
        and leader.silent < LEADER_SILENT_AFTER
    )


async def _ask(question: Callable[[], Awaitable[_T]]) -> tuple[_T | None, Dependency]:
    """Return (the answer or None, how that went)."""
    started = anyio.current_time()
    error = "no answer in time"
    try:
        with anyio.move_on_after(_PATIENCE):
            value = await question()
            return value, Dependency(ok=True, seconds=round(anyio.current_time() - started, 6), error=None)
    except (StoreUnavailable, BrokerUnavailable) as away:
        error = str(away)
    return None, Dependency(ok=False, seconds=None, error=error)


_READINESS = {200: Readiness, 503: Readiness}
_DEEP = {200: DeepHealth, 503: DeepHealth}

ROUTES: tuple[Route, ...] = (
    probe("/health/live", OPEN, live, "Whether this process answers", {200: Liveness}),
    probe("/livez", OPEN, live, "The same as /health/live", {200: Liveness}),
    probe("/health/ready", OPEN, ready, "Whether work is accepted", _READINESS),
    probe("/readyz", OPEN, ready, "The same as /health/ready", _READINESS),
    probe("/health/deep", "health:read", deep, "How everything is", _DEEP),
    probe("/healthz", "health:read", deep, "The same as /health/deep", _DEEP),
    probe("/metrics", "metrics:read", metrics, "Metrics for Prometheus", {200: ("text/plain",)}),
)
