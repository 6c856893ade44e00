"""The verdict on a history: every violation of a promise, and the figures. Pure.

    each planned fire      has one disposition, and one run, with one accepted outcome
    each acknowledged run  exists and has one accepted outcome
    each execution         belongs to a recorded attempt: the accepted one, or one that was lost, retried or taken back
    no two executions      of one run overlap; what the promises except is counted apart
    nothing                is live in the end

Jepsen matches executions with windows, because a run of Chronos does not say which fire it is for. Ours do, so each is
matched by name; what remains of the window is `late`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from tests.support.chronos.history import Attempt, Execution, History, Planned, Run

_LIVE = frozenset({"pending", "queued", "running"})
_UNFINISHED = frozenset({"lost", "requeued", "failed", "cancelled"})
_LOSS_BUDGET = 3


class Violation(msgspec.Struct, frozen=True):
    """A promise that was broken, and by what."""

    kind: str
    detail: str


class Report(msgspec.Struct, frozen=True):
    """The verdict. `extra` counts executions beyond the accepted ones, all explained unless violations say otherwise.

    Lags are seconds from a planned moment to the begin of its first execution.
    """

    violations: list[Violation]
    planned: int
    accepted: int
    dead_letters: int
    executions: int
    extra: int
    excepted: int
    overlap_seconds: float
    lags: list[float]

    @property
    def extra_rate(self) -> float:
        return self.extra / max(1, self.accepted)

    def lag(self, share: float) -> float:
        """Return the start lag that this share of the planned fires stayed below."""
        if not self.lags:
            return math.nan
        return sorted(self.lags)[min(len(self.lags) - 1, int(share * len(self.lags)))]

    def __str__(self) -> str:
        lines = [
            f"planned fires {self.planned}, accepted outcomes {self.accepted}, dead letters {self.dead_letters}",
            f"executions {self.executions}, extra {self.extra} ({self.extra_rate:.1%}), all explained unless below",
            f"start lag p50 {self.lag(0.5):.3f} s, p99 {self.lag(0.99):.3f} s",
            f"overlap {self.overlap_seconds:.3f} s, and {self.excepted} in excepted cases",
        ]
        shown = [f"  {violation.kind}: {violation.detail}" for violation in self.violations[:50]]
        return "\n".join([*lines, f"violations {len(self.violations)}", *shown])


def check(history: History, *, forgiveness: float) -> Report:
    """Judge a history; an execution may begin `epsilon` + `forgiveness` seconds late (as long as faults lasted)."""
    executions = defaultdict(list)
    for execution in sorted(history.executions, key=lambda e: e.begin):
        executions[execution.run].append(execution)
    attempts = defaultdict(list)
    for attempt in history.attempts:
        attempts[attempt.run].append(attempt)
    runs = {run.id: run for run in history.runs}
    lags = _lags(history, executions)
    violations = [
        *_dispositions(history, runs),
        *(
            Violation("lost", f"run {run} was acknowledged and is gone")
            for run in history.acknowledged
            if run not in runs
        ),
        *(v for run in history.runs for v in _outcome(run, attempts[run.id], executions[run.id])),
        *(v for run in executions for v in _explained(run, attempts[run], executions[run])),
        *(v for run in executions for v in _overlaps(executions[run])),
        *_late(history.planned, lags, forgiveness),
    ]
    accepted = sum(run.state == "completed" for run in history.runs)
    shared = [e for e in history.executions if e.shared]
    return Report(
        violations=violations,
        planned=sum(planned.count for planned in history.planned),
        accepted=accepted,
        dead_letters=sum(run.state == "dead_letter" for run in history.runs),
        executions=len(history.executions),
        extra=len(history.executions) - sum(run.state == "completed" for run in history.runs if executions[run.id]),
        excepted=sum(e.excepted for e in shared),
        overlap_seconds=sum(e.shared for e in shared if not e.excepted),
        lags=list(lags.values()),
    )


def _dispositions(history: History, runs: dict[str, Run]) -> Iterator[Violation]:
    recorded = defaultdict(list)
    for fire in history.fires:
        recorded[fire.task, fire.at].append(fire)
    made = Counter((run.task, run.planned_for) for run in history.runs if run.planned_for is not None)
    wanted = {(planned.name, at) for planned in history.planned for at in planned.fires()}
    for key in sorted(wanted):
        name = f"{key[0]} at {key[1]}"
        fires = recorded.get(key, [])
        if not fires:
            yield Violation("no disposition", name)
        elif len(fires) > 1:
            yield Violation("two dispositions", f"{name}: {', '.join(fire.disposition for fire in fires)}")
        elif fires[0].disposition not in {"fired", "late"}:
            yield Violation("not fired", f"{name}: {fires[0].disposition} ({fires[0].count})")
        elif fires[0].run not in runs:
            yield Violation("no run", name)
    for key, count in made.items():
        if count > 1:
            yield Violation("two runs", f"{key[0]} at {key[1]}")
    for key in sorted((recorded.keys() | made.keys()) - wanted):
        yield Violation("unplanned", f"{key[0]} at {key[1]}")


def _outcome(run: Run, attempts: Sequence[Attempt], executions: Sequence[Execution]) -> Iterator[Violation]:
    completed = [attempt for attempt in attempts if attempt.outcome == "completed"]
    name = f"run {run.id} of {run.task}"
    if run.state in _LIVE:
        yield Violation("live", f"{name} is {run.state}")
    elif run.state == "dead_letter" and run.losses >= _LOSS_BUDGET:
        if completed:
            yield Violation("two outcomes", f"{name} is dead-lettered and completed")
    elif run.state != "completed":
        yield Violation("no outcome", f"{name} is {run.state}: {run.reason}")
    elif len(completed) != 1:
        yield Violation("two outcomes" if completed else "no outcome", f"{name}: {len(completed)} attempts completed")
    else:
        fence = completed[0].fence
        finished = [e for e in executions if e.fence == fence and e.end is not None]
        if not finished:
            yield Violation("unfinished", f"{name}: its accepted attempt never ended by itself")
    fences = [attempt.fence for attempt in sorted(attempts, key=lambda a: a.number)]
    if fences != sorted(set(fences)):
        yield Violation("fences", f"{name}: {fences}")


def _explained(run: str, attempts: Sequence[Attempt], executions: Sequence[Execution]) -> Iterator[Violation]:
    recorded = {(attempt.number, attempt.fence): attempt for attempt in attempts}
    seen = Counter((execution.attempt, execution.fence) for execution in executions)
    for key, count in seen.items():
        name = f"run {run}, attempt {key[0]}, fence {key[1]}"
        attempt = recorded.get(key)
        if attempt is None:
            yield Violation("unexplained", f"{name}: nothing is recorded of it")
        elif attempt.outcome not in {"completed", *_UNFINISHED}:
            yield Violation("unexplained", f"{name}: {attempt.outcome}")
        if count > 1:
            yield Violation("twice", f"{name} executed {count} times")


def _overlaps(executions: Sequence[Execution]) -> Iterator[Violation]:
    for execution in executions:
        if execution.shared and not execution.excepted:
            yield Violation("overlap", f"run {execution.run}, fence {execution.fence}: {execution.shared:.3f} s")
    for before, after in pairwise(executions):
        if before.end is not None and before.end > after.begin and not after.shared and not after.excepted:
            yield Violation("overlap", f"run {after.run}: fence {before.fence} ended after {after.fence} began")


def _lags(history: History, executions: dict[str, list[Execution]]) -> dict[tuple[str, int], float]:
    """Return the start lag of each planned fire that was executed."""
    return {
        (run.task, run.planned_for): executions[run.id][0].begin - run.planned_for
        for run in history.runs
        if run.planned_for is not None and executions[run.id]
    }


def _late(planned: Sequence[Planned], lags: dict[tuple[str, int], float], forgiveness: float) -> Iterator[Violation]:
    epsilon = {each.name: each.epsilon for each in planned}
    for (task, at), lag in lags.items():
        if lag > epsilon.get(task, math.inf) + forgiveness:
            yield Violation("late", f"{task} at {at} began {lag:.1f} s late")
        elif lag < -0.001:
            yield Violation("early", f"{task} at {at} began {-lag:.3f} s early")
