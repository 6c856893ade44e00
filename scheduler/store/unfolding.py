"""What the leader does to workflow runs: unfold them into runs of their tasks, and conclude them when these have ended.

Each is one transaction under the term. Everything between is the ordinary machinery: edges between runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from scheduler.domain.ids import IdSource
from scheduler.domain.task import encode_spec
from scheduler.domain.workflows import WorkflowSpec, check_unfolding, decode_workflow, edges_of, node_spec, outcome
from scheduler.store.database import Database, Executor
from scheduler.store.edges import write_edges
from scheduler.store.execution import settle_onward
from scheduler.store.intake import Intake, NewTask, insert_once
from scheduler.store.terms import fenced
from scheduler.wire.workflows import WorkflowNode

_REASON = "workflow_ended"
_parameters = msgspec.json.Decoder(dict[str, str]).decode


class Unfolding:
    """All methods raise StoreUnavailable, and TermLost once `epoch` has ended."""

    def __init__(self, database: Database, ids: IdSource) -> None:
        self._database = database
        self._ids = ids
        self._intake = Intake(database)

    async def due(self, limit: int, without: Sequence[UUID]) -> list[UUID]:
        """Return runs of carriers that can go on, without some that are left for later."""
        return [row["id"] for row in await self._database.fetch("due_workflow_runs", limit, without)]

    async def go_on(self, epoch: int, run_id: UUID) -> bool:
        """Unfold a run, or conclude it if its tasks have ended; False if it was changed meanwhile.

        Whatever else is raised than of `StoreUnavailable` and `TermLost` is about this run alone.
        """
        async with fenced(self._database, epoch) as executor:
            run = await executor.fetchrow("lock_workflow_run", run_id)
            if run is None:
                return False
            begun = await executor.fetchrow("begun_workflow_run", run_id)
            if begun is None:
                await executor.execute("insert_workflow_run", run_id, run["task_id"], b"{}")
                begun = await executor.fetchrow("begun_workflow_run", run_id)
            if begun is None:  # the workflow was deleted while its run waited
                await executor.fetch("cancel_runs", [run_id], run["namespace"], [], "task_deleted", None)
                return True
            spec = decode_workflow(begun["spec"])
            if begun["unfolded"]:
                await self._conclude(executor, run_id, spec)
                return True
            parameters = _parameters(begun["parameters"])
            check_unfolding(spec, parameters)
            tasks = self._tasks(spec, parameters, run)
            await self._unfold(executor, run_id, spec, tasks)
            return True

    async def abandoned(self, epoch: int, limit: int) -> tuple[int, list[tuple[UUID, UUID]]]:
        """Cancel what still lives of workflow runs that were ended; return how many, and (run, worker) to be told."""
        found = [row["run_id"] for row in await self._database.fetch("abandoned_workflow_runs", limit)]
        requested: list[tuple[UUID, UUID]] = []
        if found:
            async with fenced(self._database, epoch) as executor:
                await executor.execute("lock_abandoned_runs", found)  # somebody may have let some run again
                rows = await executor.fetch("left_of_abandoned_runs", found)
                for row in rows:
                    if row["live"]:
                        done = await executor.fetch(
                            "cancel_runs", sorted(row["live"]), row["namespace"], [], _REASON, None
                        )
                        requested += [(r["run_id"], r["worker_id"]) for r in done if r["kind"] == "requested"]
                        await settle_onward(executor, done, ())
                await executor.execute("close_workflow_runs", [row["run_id"] for row in rows])
        return len(found), requested

    def _tasks(self, spec: WorkflowSpec, parameters: dict[str, str], run: Any) -> list[NewTask]:
        ids = self._ids.take(2 * len(spec.tasks))
        tasks = []
        for task, task_id, run_id in zip(spec.tasks, ids[::2], ids[1::2], strict=True):
            own = node_spec(task, parameters)
            tasks.append(
                NewTask(
                    task_id,
                    run_id,
                    run["namespace"],
                    run["created_by"],
                    own,
                    encode_spec(own),
                    traceparent=run["traceparent"],
                )
            )
        return tasks

    async def _unfold(self, executor: Executor, run_id: UUID, spec: WorkflowSpec, tasks: Sequence[NewTask]) -> None:
        edges = edges_of(spec)
        await self._intake.ensure_lanes(executor, [(task.namespace, task.spec) for task in tasks])
        await insert_once(executor, tasks, [len(own) for own in edges])
        rows: list[tuple[object, ...]] = [
            (
                task.run_id,
                position,
                tasks[edge.upstream].task_id,
                tasks[edge.upstream].run_id,
                None,
                edge.condition,
                "waiting",
            )
            for task, own in zip(tasks, edges, strict=True)
            for position, edge in enumerate(own)
        ]
        await executor.execute("forget_edges", [run_id])  # what it waited for has ended
        rows += [
            (run_id, position, task.task_id, task.run_id, None, "completion", "waiting")
            for position, task in enumerate(tasks)
        ]
        await write_edges(executor, rows)
        await executor.execute("await_runs", [run_id], [len(tasks)])
        await executor.execute(
            "insert_workflow_nodes",
            run_id,
            list(range(len(tasks))),
            [task.spec.name for task in tasks],
            [task.task_id for task in tasks],
            [task.run_id for task in tasks],
        )

    async def _conclude(self, executor: Executor, run_id: UUID, spec: WorkflowSpec) -> None:
        nodes = [WorkflowNode(**dict(row)) for row in await executor.fetch("workflow_nodes", run_id)]
        live = [node for node in nodes if node.finished_at is None]
        if live:  # somebody let one of them run again after its end was counted
            await executor.execute("forget_edges", [run_id])
            await write_edges(
                executor,
                [(run_id, n, node.task_id, node.run_id, None, "completion", "waiting") for n, node in enumerate(live)],
            )
            await executor.execute("await_runs", [run_id], [len(live)])
            return
        state, reason = outcome([node.name for node in nodes], [node.state for node in nodes], edges_of(spec))
        await settle_onward(executor, await executor.fetch("conclude_workflow_run", run_id, state, reason), ())
