"""What changed between two reports, by ratios where there are any: machines and days differ, ratios less so."""

from __future__ import annotations

import statistics
from typing import Literal

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.model import Answer, Better, Measurement, Report, number, times

Verdict = Literal["gain", "regression", "within the spread", "changed", "too few rounds"]
_STYLE: dict[str, str] = {"gain": "green", "regression": "red"}
_ROUNDS = 3
"""Fewer have no spread to speak of."""


class Change(msgspec.Struct, frozen=True):
    """One measurement of both reports; `factor` is the second figure over the first, of ratios if both have one."""

    question: str
    name: str
    unit: str
    before: float
    after: float
    by_ratio: bool
    factor: float | None
    verdict: Verdict


def compare(first: Report, second: Report) -> list[Change]:
    """Return the changes from `first` to `second`, in the order of the second."""
    known = {(answer.question, m.name): m for answer in first.answers for m in answer.measurements}
    return [
        _change(answer.question, known[answer.question, m.name], m)
        for answer in second.answers
        for m in answer.measurements
        if (answer.question, m.name) in known
    ]


def _change(question: str, before: Measurement, after: Measurement) -> Change:
    by_ratio = bool(before.ratios and after.ratios)
    first, second = (before.ratios, after.ratios) if by_ratio else (before.values, after.values)
    old, new = statistics.median(first), statistics.median(second)
    factor = new / old if old else None
    if min(len(first), len(second)) < _ROUNDS:
        verdict: Verdict = "too few rounds"
    else:
        verdict = _verdict(old, new, max(_spread(first), _spread(second)), after.better)
    return Change(question, after.name, after.unit, old, new, by_ratio, factor, verdict)


def _spread(values: list[float]) -> float:
    median = statistics.median(values)
    return (max(values) - min(values)) / median if median else 0.0


def _verdict(old: float, new: float, spread: float, better: Better) -> Verdict:
    """Only what leaves the spread of both is called a change; what was nothing has none."""
    if abs(new - old) <= max(spread, 0.02) * abs(old):
        return "within the spread"
    if better == "neither":
        return "changed"
    return "gain" if (new > old) == (better == "higher") else "regression"


def regressions(changes: list[Change]) -> list[Change]:
    """Return what has become worse by more than the spread of either report's rounds."""
    return [change for change in changes if change.verdict == "regression"]


def unanswered(first: Report, second: Report) -> list[Answer]:
    """Return what could not be answered in the second report, or in fewer rounds than asked for, but could before."""
    well = {answer.question for answer in first.answers if answer.error is None}
    return [answer for answer in second.answers if answer.error is not None and answer.question in well]


def show(console: Console, changes: list[Change], failed: list[Answer]) -> None:
    """Print the changes as a table, how many of them leave the spread, and what is answered no more."""
    table = Table("question", "figure", "before", "after", "change", "")
    for change in changes:
        figures = [times(v) if change.by_ratio else f"{number(v)} {change.unit}" for v in (change.before, change.after)]
        moved = "" if change.factor is None else f"{change.factor - 1:+.1%}"
        row = (change.question, change.name, *figures, moved, change.verdict)
        table.add_row(*map(escape, row), style=_STYLE.get(change.verdict))
    console.print(table)
    gains = sum(change.verdict == "gain" for change in changes)
    console.print(
        f"{len(changes)} figures in both: {len(regressions(changes))} regressions, {gains} gains", highlight=False
    )
    for answer in failed:
        console.print(f"{answer.question} failed: {answer.error}", style="red", highlight=False, markup=False)
