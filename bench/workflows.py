"""Runs recorded scientific workflows as tasks with dependencies: `python -m bench.workflows DIR --server URL`.

Each WfFormat 1.5 file (https://wfcommons.org/format) becomes one batch: a task for each recorded one, which sleeps for
its recorded runtime times `--scale` (`/bin/true` at scale 0) and waits for its parents to succeed. Afterwards every
edge is checked against the times that the runs recorded, and the makespan is compared with the one that a list
scheduler with as many slots, no latency and no cost would reach.
"""

from __future__ import annotations

import argparse
import heapq
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from scheduler.client import DEFAULT_SERVER, Client, ClientError, Run, TaskSpec
from scheduler.domain.run import TERMINAL
from scheduler.domain.task import Dependency

LARGEST = 10_000
"""Tasks that one batch takes."""


class Job(msgspec.Struct, frozen=True):
    """One recorded task: how long it ran (seconds), and what it waited for."""

    runtime: float
    parents: tuple[str, ...]


class Workflow(msgspec.Struct, frozen=True):
    """A recorded workflow; `jobs` by id."""

    name: str
    jobs: dict[str, Job]

    @property
    def edges(self) -> list[tuple[str, str]]:
        """Every (parent, child)."""
        return [(parent, child) for child, job in self.jobs.items() for parent in job.parents]

    @property
    def sinks(self) -> list[str]:
        """The jobs that nothing waits for: when they have ended well, so has everything."""
        parents = {parent for job in self.jobs.values() for parent in job.parents}
        return [name for name in self.jobs if name not in parents]


class Result(msgspec.Struct, frozen=True):
    """What became of one workflow; times in seconds.

    `makespan` is from the batch's commit to the last run's end as the server recorded them, `wall` what the client
    saw, from sending the batch to knowing that all is over.
    """

    workflow: str
    tasks: int
    edges: int
    violations: int
    unfinished: int
    makespan: float
    ideal: float
    wall: float


def read(path: Path) -> Workflow:
    """Read a WfFormat 1.5 file. Raises KeyError or msgspec.DecodeError for anything else."""
    document: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    body = document["workflow"]
    runtimes = {task["id"]: float(task["runtimeInSeconds"]) for task in body["execution"]["tasks"]}
    jobs = {
        task["id"]: Job(runtimes.get(task["id"], 0.0), tuple(dict.fromkeys(task["parents"])))
        for task in body["specification"]["tasks"]
    }
    return Workflow(document["name"], jobs)


def specs(workflow: Workflow, scale: float, queue: str) -> list[TaskSpec]:
    """Return the batch that stands for a workflow."""
    return [
        TaskSpec(
            name=name,
            command=["sleep", f"{job.runtime * scale:.4f}"] if scale else ["/bin/true"],
            queue=queue,
            timeout=None,
            depends_on=[Dependency(task=parent) for parent in job.parents],
            tags=[workflow.name[:255]],
        )
        for name, job in workflow.jobs.items()
    ]


def ideal_makespan(workflow: Workflow, scale: float, slots: int) -> float:
    """Return what list scheduling reaches: a free slot takes the ready job with the longest path behind it."""
    children: dict[str, list[str]] = {name: [] for name in workflow.jobs}
    for parent, child in workflow.edges:
        children[parent].append(child)
    missing = {name: len(job.parents) for name, job in workflow.jobs.items()}
    order = [name for name, count in missing.items() if count == 0]
    for name in order:  # grows while it is walked: parents before children
        for child in children[name]:
            missing[child] -= 1
            if missing[child] == 0:
                order.append(child)
    behind: dict[str, float] = {}
    for name in reversed(order):
        behind[name] = workflow.jobs[name].runtime + max((behind[child] for child in children[name]), default=0.0)

    missing = {name: len(job.parents) for name, job in workflow.jobs.items()}
    ready = [(-behind[name], name) for name, count in missing.items() if count == 0]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < slots:
            _, name = heapq.heappop(ready)
            heapq.heappush(running, (now + workflow.jobs[name].runtime * scale, name))
        now, done = heapq.heappop(running)
        for child in children[done]:
            missing[child] -= 1
            if missing[child] == 0:
                heapq.heappush(ready, (-behind[child], child))
    return now


def violations(workflow: Workflow, runs: Mapping[str, Run]) -> list[str]:
    """Return every edge that was not respected: the child started before the parent had succeeded."""
    found = []
    for parent, child in workflow.edges:
        before, after = runs[parent], runs[child]
        if after.started_at is None:
            continue
        if before.state != "completed" or before.finished_at is None or after.started_at < before.finished_at:
            found.append(f"{child} started {after.started_at}, {parent} ended {before.finished_at} {before.state}")
    return found


def execute(client: Client, workflow: Workflow, *, scale: float, slots: int, queue: str) -> Result:
    """Submit a workflow, wait for it, and judge it."""
    batch = specs(workflow, scale, queue)
    started = time.monotonic()
    run_ids = [str(created.run_id) for created in client.submit_batch(batch)]
    by_name = dict(zip(workflow.jobs, run_ids, strict=True))
    for name in workflow.sinks:
        client.wait(by_name[name])
    found = collect(client, run_ids)
    wall = time.monotonic() - started
    runs = {name: found[run_id] for name, run_id in by_name.items()}
    wrong = violations(workflow, runs)
    for line in wrong[:10]:
        print(f"order violated: {line}", file=sys.stderr)
    ends = [run.finished_at for run in runs.values() if run.finished_at is not None]
    begin = min(run.created_at for run in runs.values())
    return Result(
        workflow=workflow.name,
        tasks=len(workflow.jobs),
        edges=len(workflow.edges),
        violations=len(wrong),
        unfinished=sum(run.state != "completed" for run in runs.values()),
        makespan=(max(ends) - begin).total_seconds(),
        ideal=ideal_makespan(workflow, scale, slots),
        wall=wall,
    )


def collect(client: Client, run_ids: Sequence[str]) -> dict[str, Run]:
    """Return these runs, ended: ids grow with time, so the newest pages hold them all."""
    wanted = set(run_ids)
    oldest = min(wanted)
    found: dict[str, Run] = {}
    for run in client.runs(page=1000):
        if str(run.id) < oldest:
            break
        if str(run.id) in wanted:
            found[str(run.id)] = run if run.state in TERMINAL else client.wait(run.id)
    return found


def show(results: Sequence[Result]) -> None:
    """Print a table."""
    heads = ("workflow", "tasks", "edges", "violations", "unfinished", "makespan s", "ideal s", "ratio", "wall s")
    rows: list[tuple[str, ...]] = [heads]
    for r in results:
        ratio = f"{r.makespan / r.ideal:.3f}" if r.ideal else "-"
        figures = (r.tasks, r.edges, r.violations, r.unfinished, f"{r.makespan:.3f}", f"{r.ideal:.3f}", ratio)
        rows.append((r.workflow, *map(str, figures), f"{r.wall:.3f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print("  ".join(cells))


def main() -> int:
    """Run every workflow in a directory, one after the other; exit 1 if an order was violated or a task failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.workflows", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a WfFormat 1.5 file, or a directory of them")
    parser.add_argument("--server", default=os.environ.get("DTS_SERVER", DEFAULT_SERVER), help="(%(default)s)")
    parser.add_argument("--scale", type=float, default=0.0, help="sleep so much of the recorded runtime (%(default)g)")
    parser.add_argument("--slots", type=int, help="slots that the ideal schedule has; default: those of all workers")
    parser.add_argument("--queue", default="default", help="queue to use (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object a workflow instead of the table")
    options = parser.parse_args()
    files = sorted(options.source.glob("*.json")) if options.source.is_dir() else [options.source]
    if not files:
        parser.error(f"there is no *.json in {options.source}")
    results = []
    with Client(options.server) as client:
        try:
            slots = options.slots or sum(w.slots for w in client.workers() if w.state == "live") or 1
            for file in files:
                workflow = read(file)
                if len(workflow.jobs) > LARGEST:
                    print(f"{file.name}: {len(workflow.jobs)} tasks are more than one batch takes", file=sys.stderr)
                    continue
                result = execute(client, workflow, scale=options.scale, slots=slots, queue=options.queue)
                results.append(result)
                if options.json:
                    print(msgspec.json.encode(result).decode(), flush=True)
                elif sys.stderr.isatty():
                    print(f"{workflow.name} done", file=sys.stderr)
        except ClientError as error:
            print(f"{options.server}: {error}", file=sys.stderr)
            return 1
    if not options.json:
        print(f"scale {options.scale:g}, {slots} slots")
        show(results)
    return int(any(result.violations or result.unfinished for result in results))


if __name__ == "__main__":
    sys.exit(main())
