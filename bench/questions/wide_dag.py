"""How long a wide graph takes: ten layers of 200 tasks, each task depending on three of the layer before.

All `/bin/true`, submitted as one batch of 2,000 to one worker. The clock runs from the first byte sent until the last
outcome is committed; that no run began before all that it depends on had ended is checked.

Held against the same number of independent tasks, submitted in the same way in the same round. Layers may overlap, so
nothing but the edges' own cost, and slots that stand empty near the end of a layer, is between the two.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from bench import graphs
from bench.model import Against, Bound, Sample
from bench.question import Question

UPSTREAMS = 3


class WideDag(Question):
    """Runs the same graph again and again."""

    name = "wide_dag"
    title = "Wide graph: ten layers of 200, three edges a task"

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Start one system for all rounds and warm it up."""
        self._system = await stack.enter_async_context(self.bench.system())
        await self._run("warm-up-", (2, 10), connected=True)

    async def ask(self) -> list[Sample]:
        """Run the graph, and the same tasks without edges."""
        layers, width = shape = (5, 40) if self.bench.quick else (10, 200)
        seconds = {
            connected: await self._run(f"{self.round}-{connected}-", shape, connected=connected)
            for connected in self.turned((True, False))
        }
        rates = {connected: layers * width / taken for connected, taken in seconds.items()}
        return [
            Sample(
                name=f"{layers} layers of {width}",
                value=rates[True],
                unit="tasks/s",
                against=Against("the same tasks without edges", rates[False]),
                margin=Bound("ratio", least=0.1),
            )
        ]

    async def _run(self, prefix: str, shape: tuple[int, int], *, connected: bool) -> float:
        layers, width = shape
        edges = [
            (f"{layer}-{n}", [f"{layer - 1}-{(n + step) % width}" for step in range(UPSTREAMS)] if layer else [])
            for layer in range(layers)
            for n in range(width)
        ]
        graph = graphs.tasks(edges, prefix=prefix, connected=connected)
        return await graphs.makespan(self._system, graph, name=prefix)
