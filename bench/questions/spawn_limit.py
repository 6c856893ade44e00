"""How many commands a second this machine can start and reap at all.

A C loop starts `/bin/true` by posix_spawn and waits for it, in 1 to 4 processes at once, and does nothing else: no
pipes, no database, nothing remembered. It is the limit that `bulk_true` is held against; the best number of processes
counts, so that the limit is not made to look lower than it is.
"""

from __future__ import annotations

from bench.limits import NO_COMPILER, spawn_rates
from bench.model import Sample
from bench.question import Question

PROCESSES = (1, 2, 3, 4)


class SpawnLimit(Question):
    """Runs the C loop alone."""

    name = "spawn_limit"
    title = "The limit: a C loop that spawns /bin/true"

    async def ask(self) -> list[Sample]:
        """Measure each number of processes once; the order turns, so that none always comes first."""
        rates = await spawn_rates(
            self.bench.programs, processes=self.turned(PROCESSES), spawns=500 if self.bench.quick else 4000
        )
        if rates is None:
            self.note(NO_COMPILER)
            return []
        samples = [Sample(name=_label(n), value=rates[n], unit="tasks/s") for n in PROCESSES]
        return [*samples, Sample(name="best", value=max(rates.values()), unit="tasks/s")]


def _label(processes: int) -> str:
    return f"{processes} process{'es' if processes > 1 else ''}"
