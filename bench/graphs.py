"""Graphs of tasks: submitted in one batch, beside the same tasks without any edge between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import bodies
from bench.system import System, Unfinished

Edges = Sequence[tuple[str, Sequence[str]]]
"""Names, each with the names that it depends on, which come before it."""


def tasks(edges: Edges, *, prefix: str, connected: bool) -> list[dict[str, Any]]:
    """Return the tasks of a graph; not `connected`, they are as many and as named, and independent."""
    return [
        bodies.task(f"{prefix}{name}", depends_on=[{"task": f"{prefix}{upstream}"} for upstream in upstreams])
        if connected and upstreams
        else bodies.task(f"{prefix}{name}")
        for name, upstreams in edges
    ]


async def makespan(system: System, graph: Sequence[dict[str, Any]], *, name: str) -> float:
    """Return the seconds from the first byte sent until every run's outcome is committed. Raises Unfinished.

    `name` is what all the graph's names begin with. No run may have started before all that it depends on had ended.
    """
    result = await system.post("/api/tasks/batch", bodies.batches(graph, len(graph)))
    seconds = await system.until_done(timeout=60 + len(graph) / 20) - result.began
    ended = await system.database.fetchval(
        "SELECT count(*) FROM runs JOIN tasks ON tasks.id = runs.task_id"
        " WHERE runs.state = 'completed' AND starts_with(tasks.name, $1)",
        name,
    )
    early = await system.database.fetchval(
        "SELECT count(*) FROM run_dependencies AS edge"
        " JOIN runs AS up ON up.id = edge.upstream_run_id JOIN runs AS down ON down.id = edge.run_id"
        " WHERE down.started_at < up.finished_at"
    )
    if ended != len(graph) or early:
        raise Unfinished(f"of {len(graph)} tasks {ended} completed, {early} before what they depend on")
    return seconds
