"""Plans past this machine: `python -m bench.capacity bench.json` of a run with `dispatch_only` and `costs`.

Fits the cost model (`bench/costmodel.py`) to what was measured with one worker, sets its predictions for more workers
beside what was measured with them, and says what ten and a hundred times the load would take and where it ends.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench import costmodel, report
from bench.costmodel import Cost, Load, Site
from bench.model import Report, number

_WORKERS = re.compile(r", (\d+) workers?$")
_TIMES = (1, 10, 100)
REAL, NOTHING = "/bin/true, 1 worker", "no-op, 1 worker"
"""The shapes whose batches plans assume, and whose rate is the load that is multiplied."""


class Incomplete(Exception):
    """The report lacks what the model is fitted to."""


def loads(findings: Report) -> tuple[dict[str, Load], dict[str, float]]:
    """Return every shape of load of a report by name, and what components use at rest (µs a second).

    Raises Incomplete.
    """
    shapes: dict[str, dict[str, float]] = defaultdict(dict)
    for answer in findings.answers:
        if answer.question in {"dispatch_only", "costs"}:
            for m in answer.measurements:
                shape, _, what = m.name.partition(": ")
                shapes[shape][what] = m.median
    rest = {what.removeprefix("CPU of "): value * 1000 for what, value in shapes.pop("idle", {}).items()}
    if not rest or REAL not in shapes or NOTHING not in shapes:
        raise Incomplete("the report lacks answers: python -m bench dispatch_only costs")
    return {shape: _load(shape, figures) for shape, figures in shapes.items()}, rest


def _load(shape: str, figures: Mapping[str, float]) -> Load:
    found = _WORKERS.search(shape)
    cpu = {what.removeprefix("CPU of "): value for what, value in figures.items() if what.startswith("CPU of ")}
    cpu.pop("supervisor", None)
    return Load(
        name=shape,
        workers=int(found[1]) if found else 1,
        rate=figures["rate"],
        transactions=figures["writing transactions"],
        requests=figures["requests"],
        log=figures["PostgreSQL's log"],
        syncs=figures["log forced to disk"],
        cpu=cpu,
    )


def fitted(shapes: Mapping[str, Load], rest: Mapping[str, float]) -> dict[str, Cost]:
    """Return costs fitted to what one worker did: of dispatch from no-ops, of starting commands from the rest."""
    costs = costmodel.fit([load for load in shapes.values() if load.workers == 1 and load.name != REAL], rest)
    real = shapes[REAL]
    starting = real.cpu["worker"] - costs["worker"].each(real.transactions)
    return {
        **costs,
        "commands": Cost(real.cpu.get("commands", 0.0), 0.0, 0.0),
        "starting commands": Cost(max(0.0, starting), 0.0, 0.0),
    }


def real_load(load: Load, costs: Mapping[str, Cost]) -> Load:
    """Return the load with the worker's part in starting commands as a component of its own."""
    starting = costs["starting commands"].task
    return msgspec.structs.replace(
        load, cpu={**load.cpu, "worker": load.cpu["worker"] - starting, "starting commands": starting}
    )


def main() -> int:
    """Read a report, print the plan."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("report", type=Path, help="bench.json of a run with dispatch_only and costs")
    parser.add_argument("--postgres-cores", type=int, default=32, help="of the largest server to be had (%(default)s)")
    parser.add_argument("--log-mb", type=float, default=500, help="MB/s that its log may grow by (%(default)g)")
    parser.add_argument(
        "--speed", type=float, default=1.0, help="of a core there, in cores of this machine (%(default)g)"
    )
    parser.add_argument("--cores", type=float, default=os.cpu_count(), help="of the machine measured (%(default)s)")
    options = parser.parse_args()
    try:
        shapes, rest = loads(report.read(options.report))
    except (OSError, msgspec.DecodeError, Incomplete, KeyError) as error:
        sys.stderr.write(f"bench.capacity: {options.report}: {error}\n")
        return 2
    costs = fitted(shapes, rest)
    console = Console(width=None if sys.stdout.isatty() else 140)
    for table in (
        _costs(costs),
        _checks(shapes, costs, options.cores),
        *_plans(shapes, costs, Site(options.postgres_cores, options.log_mb * 1e6, options.speed)),
    ):
        console.print(table, highlight=False)
    return 0


def _costs(costs: Mapping[str, Cost]) -> Table:
    table = Table("component", "µs a task", "µs a batch", "at rest, % of a core", title="Costs, fitted to one worker")
    for component, cost in costs.items():
        table.add_row(component, number(cost.task), number(cost.batch), number(cost.rest / 1e4))
    return table


def _checks(shapes: Mapping[str, Load], costs: Mapping[str, Cost], cores: float) -> Table:
    table = Table("shape", "CPU: predicted", "measured µs/task", "off", "most: predicted", "measured tasks/s", "off")
    table.title = "Checks: fitted to one worker, predicted for more"
    for load in shapes.values():
        if load.name == REAL:
            continue
        cpu = costmodel.predict_cpu({name: costs[name] for name in load.cpu}, load)
        row = [load.name, *_against(sum(cpu.values()), sum(load.cpu.values()))]
        if load.name.startswith("no-op"):
            row += _against(costmodel.most(costs, load, workers=load.workers, cores=cores), load.rate)
        elif load.name.startswith("naps") and load.workers > 1:
            row += _against(shapes["naps, 1 worker"].rate * load.workers, load.rate)
        table.add_row(*row)
    return table


def _against(predicted: float, measured: float) -> list[str]:
    return [number(predicted), number(measured), f"{predicted / measured - 1:+.0%}"]


def _plans(shapes: Mapping[str, Load], costs: Mapping[str, Cost], site: Site) -> Sequence[Table]:
    load = real_load(shapes[REAL], costs)
    plans = [costmodel.plan(costs, load, load.rate * factor, site) for factor in _TIMES]
    takes = Table("", *(f"{factor} x" for factor in _TIMES), title="What it takes: commands as short as /bin/true")
    takes.add_row("tasks/s", *(number(plan.rate) for plan in plans))
    for component in plans[0].cores:
        takes.add_row(f"cores, {component}", *(number(plan.cores[component]) for plan in plans))
    for component in plans[0].processes:
        takes.add_row(f"processes, {component}", *(number(plan.processes[component]) for plan in plans))
    takes.add_row("PostgreSQL's log, MB/s", *(number(plan.log / 1e6) for plan in plans))
    takes.add_row("forced writes/s, at most", *(number(plan.syncs) for plan in plans))
    ends = Table("wall", "tasks/s", "times", "what moves it", title="Where it ends")
    for wall in costmodel.walls(costs, load, site):
        ends.add_row(wall.what, number(wall.rate), f"{wall.rate / load.rate:.0f}", wall.moves)
    return takes, ends


if __name__ == "__main__":
    sys.exit(main())
