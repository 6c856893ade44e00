"""What a question answers: samples of one round, measurements over all rounds, a report of it all."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec

Better = Literal["higher", "lower", "neither"]


class Against(msgspec.Struct, frozen=True):
    """A limit or a peer, measured in the same round and in the same unit as what is held against it."""

    name: str
    value: float


class Bound(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a value, or its ratio to what it is measured against, has to be."""

    of: Literal["value", "ratio"]
    least: float | None = None
    most: float | None = None

    def holds(self, figure: float) -> bool:
        """Say whether `figure` is within."""
        return (self.least is None or figure >= self.least) and (self.most is None or figure <= self.most)

    def text(self, unit: str) -> str:
        """Return the bound as people write it."""
        sign, limit = ("≥", self.least) if self.least is not None else ("≤", self.most)
        assert limit is not None
        return f"{sign} {times(limit)}" if self.of == "ratio" else f"{sign} {number(limit)} {unit}"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one round.

    `reach` is what the project promises, judged on the median of a full run. `margin` is what a quick run asserts:
    a ratio, with so much room that only a real regression breaks it.
    """

    name: str
    value: float
    unit: str
    better: Better = "higher"
    against: Against | None = None
    reach: Bound | None = None
    margin: Bound | None = None


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One figure over all rounds; `against` holds one value a round too, or none at all."""

    name: str
    unit: str
    better: Better
    values: list[float]
    against_name: str | None = None
    against: list[float] = []
    reach: Bound | None = None
    margin: Bound | None = None

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The least of all rounds."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The most of all rounds."""
        return max(self.values)

    @property
    def ratios(self) -> list[float]:
        """Each round's ratio to what was measured beside it; none if nothing was."""
        return [value / other for value, other in zip(self.values, self.against, strict=False) if other]

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios, or None if there are none."""
        return statistics.median(self.ratios) if self.ratios else None

    def keeps(self, bound: Bound | None) -> bool | None:
        """Say whether the median keeps a bound; None where there is no bound, or nothing to judge it by."""
        figure = None if bound is None else self.median if bound.of == "value" else self.ratio
        return None if bound is None or figure is None else bound.holds(figure)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """All that became of one question. `error` says why it has no measurements, or fewer rounds than asked for."""

    question: str
    title: str
    about: str
    measurements: list[Measurement]
    notes: list[str]
    seconds: float
    error: str | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the whole bench, as it stands in the JSON file."""

    format: int = 1
    started_at: str
    quick: bool
    runs: int
    machine: dict[str, str]
    settings: dict[str, str]
    answers: list[Answer]


def collect(rounds: Sequence[Sequence[Sample]]) -> list[Measurement]:
    """Turn rounds of samples into measurements, in the order in which their names first appeared."""
    by_name: dict[str, list[Sample]] = {}
    for samples in rounds:
        for sample in samples:
            by_name.setdefault(sample.name, []).append(sample)
    return [_measurement(samples) for samples in by_name.values()]


def _measurement(samples: list[Sample]) -> Measurement:
    first = samples[0]
    against = [sample.against.value for sample in samples if sample.against is not None]
    return Measurement(
        name=first.name,
        unit=first.unit,
        better=first.better,
        values=[sample.value for sample in samples],
        against_name=first.against.name if first.against else None,
        against=against if len(against) == len(samples) else [],
        reach=first.reach,
        margin=first.margin,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def number(value: float) -> str:
    """Return a figure with as many digits as anybody can use."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def times(ratio: float) -> str:
    """Return a ratio as people say it: per cent of a limit, or so many times it."""
    return f"{ratio:.0%}" if ratio < 2 else f"{number(ratio)} x"
