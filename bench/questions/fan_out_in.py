"""How long one task, then 1,000 side by side, then one that waits for all of them, take.

All `/bin/true`, submitted as one batch to one worker. The clock runs from the first byte sent until the last outcome is
committed; that no run began before all that it depends on had ended is checked. Two gaps are listed from the runs' own
stamps: from the first task's end until half of the many are claimed, and from the last of the many's end until the one
that waits for them is claimed.

Held against the same number of independent tasks, submitted in the same way in the same round: what is left is what the
edges cost.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from bench import graphs
from bench.model import Against, Bound, Sample
from bench.question import Question

_GAPS = """
WITH graph AS (
  SELECT tasks.name, runs.started_at, runs.finished_at FROM runs JOIN tasks ON tasks.id = runs.task_id
  WHERE starts_with(tasks.name, $1)
), ends AS (
  SELECT max(finished_at) FILTER (WHERE name = $1 || 'first') AS first_ended,
         max(finished_at) FILTER (WHERE name LIKE $1 || 'side-%') AS last_side_ended,
         max(started_at) FILTER (WHERE name = $1 || 'last') AS last_started
  FROM graph
)
SELECT extract(epoch FROM percentile_disc(0.5) WITHIN GROUP (ORDER BY graph.started_at) - ends.first_ended)::float8,
       extract(epoch FROM ends.last_started - ends.last_side_ended)::float8
FROM graph, ends WHERE graph.name LIKE $1 || 'side-%'
GROUP BY ends.first_ended, ends.last_started, ends.last_side_ended
"""


class FanOutIn(Question):
    """Runs the same graph again and again."""

    name = "fan_out_in"
    title = "Fan-out and fan-in: one, then 1,000, then one"

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Start one system for all rounds and warm it up."""
        self._system = await stack.enter_async_context(self.bench.system())
        await self._run("warm-up-", 20, connected=True)

    async def ask(self) -> list[Sample]:
        """Run the graph, and the same tasks without edges."""
        width = 100 if self.bench.quick else 1000
        seconds = {
            connected: await self._run(f"{self.round}-{connected}-", width, connected=connected)
            for connected in self.turned((True, False))
        }
        out, into = await self._system.database.fetchrow(_GAPS, f"{self.round}-True-")
        return [
            Sample(
                name=f"1, {width:,}, 1",
                value=seconds[True] * 1000,
                unit="ms",
                better="lower",
                against=Against("the same tasks without edges", seconds[False] * 1000),
                margin=Bound("ratio", most=20),
            ),
            Sample(name="first ended until half of the many are claimed", value=out * 1000, unit="ms", better="lower"),
            Sample(
                name="last of the many ended until the join is claimed", value=into * 1000, unit="ms", better="lower"
            ),
        ]

    async def _run(self, prefix: str, width: int, *, connected: bool) -> float:
        sides = [f"side-{n}" for n in range(width)]
        edges: graphs.Edges = [("first", ()), *((side, ("first",)) for side in sides), ("last", sides)]
        graph = graphs.tasks(edges, prefix=prefix, connected=connected)
        return await graphs.makespan(self._system, graph, name=prefix)
