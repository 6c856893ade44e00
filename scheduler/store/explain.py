"""The facts behind "why is it not running?"; `scheduler.domain.blockers` draws the conclusions."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from scheduler.domain.blockers import Facts, UnmetDependency, WorkerFacts
from scheduler.domain.gates import gate_of
from scheduler.domain.lane import demands_of, satisfies
from scheduler.domain.task import TaskSpec, decode_spec
from scheduler.domain.workflows import EXECUTOR
from scheduler.store.database import Database
from scheduler.store.gates import Gates


class Explain:
    """Reads what can keep a run from running."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._gates = Gates(database)

    async def facts(self, namespace: str, run_id: UUID) -> Facts | None:
        """Return everything that is known of one run, None if there is no such run."""
        row = await self._database.fetchrow("explain_run", run_id, namespace)
        if row is None:
            return None
        spec = decode_spec(row["spec"])
        dependencies = await self._database.fetch("explain_dependencies", run_id)
        workers = [self._worker(worker, spec, row["queue"]) for worker in await self._database.fetch("explain_workers")]
        gate = gate_of(namespace, spec)
        active = await self._gates.active(gate.concurrency) if gate and gate.concurrency else None
        use = await self._gates.rate(gate.rate) if gate and gate.rate else None
        return Facts(
            now=row["now"],
            state=row["state"],
            reason=row["reason"],
            run_at=row["run_at"],
            start_before=row["start_before"],
            attempt=row["attempt"],
            held=row["held"],
            task_paused=row["task_paused"],
            cancel_requested=row["cancel_requested"],
            worker_id=row["worker_id"],
            queue=row["queue"],
            queue_paused=row["queue_paused"],
            ahead=row["ahead"],
            dependencies=[
                UnmetDependency(
                    task_id=d["upstream_task_id"],
                    task_name=d["task_name"],
                    run_id=d["upstream_run_id"],
                    fire=d["upstream_fire"],
                    condition=d["condition"],
                    upstream_state=d["upstream_state"],
                )
                for d in dependencies
            ],
            workers=workers,
            concurrency_key=spec.concurrency.key if spec.concurrency else None,
            concurrency_max=spec.concurrency.max_runs if spec.concurrency else None,
            concurrency_active=active,
            rate_key=spec.rate_limit.key if spec.rate_limit else None,
            rate_n=spec.rate_limit.n if spec.rate_limit else None,
            rate_used=use.used if use else None,
            rate_free_in=use.free_in if use else None,
            carrier=spec.executor == EXECUTOR,
            leader_silent=row["leader_silent"] if row["leader_holder"] is not None else None,
        )

    @staticmethod
    def _worker(row: Any, spec: TaskSpec, queue: str) -> WorkerFacts:
        labels = msgspec.json.decode(row["labels"], type=dict[str, str])
        return WorkerFacts(
            id=row["id"],
            reads=queue in row["queues"]
            and satisfies(frozenset(row["executors"]), labels, spec.executor, demands_of(spec)),
            draining=row["state"] == "draining",
            free=max(0, row["slots"] - row["running"]),
        )
