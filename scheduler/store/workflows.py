"""Workflows as they are stored: definitions, their runs, and the tasks of each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from scheduler.domain.workflows import Edge, WorkflowSpec, decode_workflow, encode_workflow, holds
from scheduler.store.database import Database, Executor
from scheduler.store.edges import write_edges
from scheduler.store.pages import LAST_ID, Page
from scheduler.wire.workflows import Workflow, WorkflowNode, WorkflowRun, WorkflowRunDetail

_parameters = msgspec.json.Decoder(dict[str, str]).decode


class Workflows:
    """Reads on any connection; writes inside the caller's transaction (`executor`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, namespace: str, name: str) -> Workflow | None:
        """Return one workflow."""
        row = await self._database.fetchrow("get_workflow", namespace, name)
        return None if row is None else _workflow(row)

    async def page(self, namespace: str, after: str | None, limit: int) -> Page[Workflow]:
        """Return workflows by name."""
        rows = await self._database.fetch("list_workflows", namespace, after or "", limit + 1)
        items = [_workflow(row) for row in rows[:limit]]
        return Page(items, items[-1].name if len(rows) > limit else None)

    async def insert(self, executor: Executor, namespace: str, task_id: UUID, spec: WorkflowSpec, actor: str) -> None:
        """Store a definition beside the carrier that the transaction has made."""
        await executor.execute("insert_workflow", task_id, namespace, spec.name, encode_workflow(spec), actor)

    async def replace(self, executor: Executor, stored: Workflow, spec: WorkflowSpec, actor: str) -> None:
        """Store another definition of a workflow that was read when its carrier was locked."""
        await executor.execute("replace_workflow", stored.task_id, stored.version, encode_workflow(spec), actor)

    async def delete(self, executor: Executor, task_id: UUID) -> None:
        """Forget a definition; what has begun goes on."""
        await executor.execute("delete_workflow", task_id)

    async def begin(self, executor: Executor, run_id: UUID, task_id: UUID, parameters: Mapping[str, str]) -> None:
        """Note the definition and the parameters that a run of a carrier keeps."""
        await executor.execute("insert_workflow_run", run_id, task_id, msgspec.json.encode(parameters))

    async def runs(self, task_id: UUID, state: str | None, after: UUID | None, limit: int) -> Page[WorkflowRun]:
        """Return the runs of a workflow, newest first."""
        rows = await self._database.fetch("list_workflow_runs", task_id, after or LAST_ID, limit + 1, state)
        items = [WorkflowRun(**_run(row)) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def run(self, namespace: str, run_id: UUID, executor: Executor | None = None) -> WorkflowRunDetail | None:
        """Return one workflow run with its tasks."""
        source = executor or self._database
        row = await source.fetchrow("get_workflow_run", run_id, namespace)
        if row is None:
            return None
        nodes = [WorkflowNode(**dict(node)) for node in await source.fetch("workflow_nodes", run_id)]
        return WorkflowRunDetail(**_run(row), nodes=nodes)

    async def begun(self, executor: Executor, run_id: UUID) -> WorkflowSpec | None:
        """Return the definition that a workflow run began with."""
        row = await executor.fetchrow("begun_workflow_run", run_id)
        return None if row is None else decode_workflow(row["spec"])

    async def wait_anew(
        self,
        executor: Executor,
        run_id: UUID,
        nodes: Sequence[WorkflowNode],
        edges: Sequence[Sequence[Edge]],
        again: set[int],
    ) -> None:
        """Let the tasks in `again`, whose runs were just revived, wait for each other, and the run for them."""
        await executor.execute("forget_edges", [run_id, *(nodes[n].run_id for n in again)])
        rows: list[tuple[object, ...]] = []
        unmet: dict[UUID, int] = {run_id: len(again)}
        for n in sorted(again):
            unmet[nodes[n].run_id] = 0
            for position, edge in enumerate(edges[n]):
                upstream = nodes[edge.upstream]
                waits = edge.upstream in again
                if not waits and not holds(edge.condition, upstream.state):
                    continue
                unmet[nodes[n].run_id] += waits
                state = "waiting" if waits else "met"
                rows.append((nodes[n].run_id, position, upstream.task_id, upstream.run_id, None, edge.condition, state))
        for position, n in enumerate(sorted(again)):
            rows.append((run_id, position, nodes[n].task_id, nodes[n].run_id, None, "completion", "waiting"))
        await write_edges(executor, rows)
        await executor.execute("await_runs", list(unmet), list(unmet.values()))


def _workflow(row: Any) -> Workflow:
    spec = decode_workflow(row["spec"])
    given = {field: getattr(spec, field) for field in WorkflowSpec.__struct_fields__}
    shown = {field: row[field] for field in Workflow.__struct_fields__ if field not in given}
    return Workflow(**given, **shown)


def _run(row: Any) -> dict[str, Any]:
    return {**dict(row), "parameters": _parameters(row["parameters"])}
