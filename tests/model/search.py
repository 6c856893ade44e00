"""Many histories: plans from seeds, and the smallest plan that still fails."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Final

import msgspec

from tests.model.database import Violation
from tests.model.history import History
from tests.model.world import Fault, Job, Plan

_MACHINE_FAULTS: Final = (
    "worker killed", "worker killed", "worker drained", "worker stopped", "worker stopped", "worker cut", "worker cut",
    "worker stopped waiting", "requests lost", "answers lost", "answers lost",
    "guard killed", "guard stopped", "machine crashed", "machine frozen",
)  # fmt: skip
_PART: Final = 5_000  # histories that one processor searches before it takes more
_SCHEDULER_FAULTS: Final = ("scheduler killed", "scheduler stopped", "scheduler stopped waiting", "scheduler cut")


class Failure(msgspec.Struct, frozen=True):
    """A history that broke a promise, as small as it could be made."""

    plan: Plan
    violation: str
    trace: list[str]

    @property
    def seed(self) -> int:
        """The seed of the history as it was found."""
        return self.plan.seed

    def __str__(self) -> str:
        return "\n".join([self.violation, f"{self.plan}", *self.trace])


def plan_of(seed: int) -> Plan:
    """Make up a history."""
    rng = random.Random(seed)
    draw = rng.random
    troubled = draw() < 0.7
    faults = []
    schedulers = 2 if draw() < 0.3 else 1
    for _ in range(rng.randrange(1, 4) if troubled else 0):
        lasts = rng.choice((0.3, 2.0, 8.0, 14.0, 25.0)) * (0.5 + draw())
        if draw() < 0.12:
            kind, lasts = "database down", min(lasts, 20.0)
        elif draw() < 0.3:
            kind = rng.choice(_SCHEDULER_FAULTS)
        else:
            kind = rng.choice(_MACHINE_FAULTS)
        faults.append(Fault(kind, 6 * draw() ** 2, lasts, rng.randrange(2)))
    return Plan(
        seed=seed,
        jobs=tuple(_job(rng) for _ in range(rng.randrange(1, 4))),
        faults=tuple(faults),
        machines=1 + (draw() < 0.7),
        schedulers=schedulers,
        fires=(2.0, 3.0) if schedulers == 2 and draw() < 0.5 else (),
        lose=rng.choice((0.0, 0.0, 0.0, 0.05, 0.2)),
        slow=rng.choice((0.0, 0.0, 0.0, 0.1, 0.4)),
        slowest=rng.choice((0.2, 2.0, 6.0)),
        repeat=rng.choice((0.0, 0.3)),
        until=max((fault.at + fault.lasts for fault in faults), default=0.0) + rng.choice((3.0, 10.0, 25.0)),
    )


def _job(rng: random.Random) -> Job:
    draw = rng.random
    return Job(
        at=1.5 * draw(),
        takes=0.05 + (20 * draw() if draw() < 0.2 else 2 * draw()),
        exits=rng.choice(((0,), (0,), (1, 0), (1,))),
        stubborn=draw() < 0.2,
        max_attempts=rng.randrange(1, 4),
        on_lost=rng.choice(("retry", "retry", "retry", "fail", "dead_letter")),
        cancel_at=1.5 + 4 * draw() if draw() < 0.15 else None,
    )


def broken_by(plan: Plan, bugs: frozenset[str] = frozenset(), trace: list[str] | None = None) -> str | None:
    """Run a history; return the promise that it broke, if any."""
    try:
        History(plan, bugs, trace).run()
    except Violation as violation:
        return str(violation)
    return None


def first_failure(seeds: Iterable[int], bugs: frozenset[str] = frozenset()) -> Failure | None:
    """Run the histories of these seeds until one breaks a promise."""
    for seed in seeds:
        plan = plan_of(seed)
        if broken_by(plan, bugs) is not None:
            return explain(plan, bugs)
    return None


def first_failure_on_every_processor(seeds: range, bugs: frozenset[str] = frozenset()) -> Failure | None:
    """Do the same with processes, one for each processor; the first failure is that of the lowest seed here too."""
    parts = [seeds[first : first + _PART] for first in range(0, len(seeds), _PART)]
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=os.nice, initargs=(19,)) as processors:
        return next(filter(None, processors.map(partial(first_failure, bugs=bugs), parts)), None)


def explain(plan: Plan, bugs: frozenset[str] = frozenset()) -> Failure:
    """Take away from a failing plan whatever it does not need to fail, and tell what then happens."""
    shrinking = True
    while shrinking:
        shrinking = False
        for smaller in _smaller(plan):
            if broken_by(smaller, bugs) is not None:
                plan, shrinking = smaller, True
                break
    trace: list[str] = []
    violation = broken_by(plan, bugs, trace)
    assert violation is not None
    return Failure(plan, violation, trace)


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Plans with one thing less, or plainer."""
    replace = msgspec.structs.replace
    for field in ("faults", "jobs"):
        items = getattr(plan, field)
        for n in range(len(items) if len(items) > (field == "jobs") else 0):
            yield replace(plan, **{field: items[:n] + items[n + 1 :]})
    for field, least in {"lose": 0.0, "slow": 0.0, "repeat": 0.0, "fires": (), "schedulers": 1, "machines": 1}.items():
        if getattr(plan, field) != least:
            yield replace(plan, **{field: least})
    for n, job in enumerate(plan.jobs):
        plain = Job(at=job.at, takes=job.takes, max_attempts=job.max_attempts)
        if job != plain:
            yield replace(plan, jobs=(*plan.jobs[:n], plain, *plan.jobs[n + 1 :]))
