"""What tasks cost on other machines, and where the first wall stands: pure arithmetic on what was measured here.

The model: a component uses so much CPU for each task, so much more for each *batch* (a writing transaction; for the API
a request), and a little while there is nothing to do. As load grows, batches do too, and only the first part remains.

    CPU of a component per second = at rest + rate x (per task + per batch x batches per task)

The first two are fitted to shapes of load measured with one worker, by least squares with no part below zero; times are
microseconds on a core of the machine that was measured. Whatever is not one process more runs into a wall: a server
with one thread ends at one core, PostgreSQL at the cores, and the log, that one machine can give it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

SINGLE = ("valkey", "scheduler")
"""Components of which there is one, with one thread."""

SPREAD = ("api", "worker")
"""Components with one thread each, of which there may be any number."""

BUSY = 0.8
"""The share of a core that is planned for: queues grow long beyond it."""


class Load(msgspec.Struct, frozen=True):
    """One shape of load as it was measured. `cpu` is µs per task by component; the rest is per task too, but `rate`."""

    name: str
    workers: int
    rate: float
    transactions: float
    requests: float
    log: float
    syncs: float
    cpu: Mapping[str, float]

    def batches(self, component: str) -> float:
        """Return how many batches a component handles for each task."""
        return self.requests if component == "api" else self.transactions


class Cost(msgspec.Struct, frozen=True):
    """µs of CPU for each task and for each batch, and for each second at rest."""

    task: float
    batch: float
    rest: float

    def each(self, batches: float) -> float:
        """Return µs per task, so many batches being handled for each."""
        return self.task + self.batch * batches


class Wall(msgspec.Struct, frozen=True):
    """What ends growth at `rate` tasks a second, and what would move it."""

    what: str
    rate: float
    moves: str


class Site(msgspec.Struct, frozen=True):
    """What one machine can give: cores for PostgreSQL, bytes a second for its log; how fast its cores are."""

    postgres_cores: int = 32
    log_bytes: float = 500e6
    speed: float = 1.0


class Plan(msgspec.Struct, frozen=True):
    """What a rate takes: cores by component, processes of those that spread; bytes of log and syncs a second."""

    rate: float
    cores: Mapping[str, float]
    processes: Mapping[str, int]
    log: float
    syncs: float


def fit(loads: Sequence[Load], rest: Mapping[str, float]) -> dict[str, Cost]:
    """Return every component's cost from loads measured with the same number of workers as `rest` (µs a second)."""
    components = {component for load in loads for component in load.cpu}
    return {component: _fit(component, loads, rest.get(component, 0.0)) for component in sorted(components)}


def _fit(component: str, loads: Sequence[Load], rest: float) -> Cost:
    points = [
        (load.batches(component), max(0.0, load.cpu[component] - rest / load.rate))
        for load in loads
        if component in load.cpu
    ]
    return Cost(*line([x for x, _ in points], [y for _, y in points]), rest)


def line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Return (a, b) of y = a + b x closest to the points in proportion to each y, neither below zero."""
    weights = [1 / max(y, 1.0) ** 2 for y in ys]
    total = sum(weights)
    mean_x = sum(w * x for w, x in zip(weights, xs, strict=True)) / total
    mean_y = sum(w * y for w, y in zip(weights, ys, strict=True)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, x in zip(weights, xs, strict=True))
    if spread == 0:
        return mean_y, 0.0
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, x, y in zip(weights, xs, ys, strict=True)) / spread
    if slope < 0:
        return mean_y, 0.0
    start = mean_y - slope * mean_x
    if start < 0:
        squares = sum(w * x * x for w, x in zip(weights, xs, strict=True))
        return 0.0, sum(w * x * y for w, x, y in zip(weights, xs, ys, strict=True)) / squares
    return start, slope


def predict_cpu(costs: Mapping[str, Cost], load: Load) -> dict[str, float]:
    """Return the µs per task that each component should use under a load; workers rest one by one."""
    found = {}
    for component, cost in costs.items():
        rest = cost.rest * (load.workers if component == "worker" else 1) / load.rate
        found[component] = cost.each(load.batches(component)) + rest
    return found


def most(costs: Mapping[str, Cost], load: Load, *, workers: int, cores: float) -> float:
    """Return the tasks a second at which `cores` shared by everything, or the one thread of something, are used up.

    `load` says how large batches are and which components take part.
    """
    each = {component: costs[component].each(load.batches(component)) for component in load.cpu}
    limits = [cores * 1e6 / sum(each.values())]
    threads = {**dict.fromkeys(SINGLE, 1), "api": 1, "worker": workers}
    limits += [number * 1e6 / each[component] for component, number in threads.items() if each.get(component)]
    return min(limits)


def plan(costs: Mapping[str, Cost], load: Load, rate: float, site: Site) -> Plan:
    """Return what `rate` tasks a second take, in batches as large as under `load`."""
    each = {component: costs[component].each(load.batches(component)) / site.speed for component in load.cpu}
    cores = {component: rate * cost / 1e6 for component, cost in each.items()}
    processes = {component: max(1, math.ceil(cores[component] / BUSY)) for component in SPREAD if component in cores}
    return Plan(rate, cores, processes, rate * load.log, rate * load.syncs)


def walls(costs: Mapping[str, Cost], load: Load, site: Site) -> list[Wall]:
    """Return what ends growth, the first wall first."""
    each = {component: costs[component].each(load.batches(component)) / site.speed for component in load.cpu}
    found = [
        Wall(
            f"PostgreSQL: {site.postgres_cores} cores",
            site.postgres_cores * BUSY * 1e6 / each["postgres"],
            "fewer partitions and indexes for each claim and report to open; then an installation for each tenant",
        ),
        Wall(
            f"PostgreSQL: {site.log_bytes / 1e6:,.0f} MB of log a second",
            site.log_bytes / load.log,
            "a log device of its own, wal_compression; then an installation for each tenant",
        ),
        Wall(
            "Valkey: one thread",
            BUSY * 1e6 / each["valkey"],
            "a cluster: every key of a lane has one hash tag, so lanes spread over its servers",
        ),
        Wall(
            "leader: one process, one thread",
            BUSY * 1e6 / each["scheduler"],
            "the fast path leaves it next to nothing of plain work; what it fires and gates does not spread",
        ),
    ]
    return sorted(found, key=lambda wall: wall.rate)
