from __future__ import annotations

from bench.model import Answer, Better, Bound, Measurement, Report


def measurement(
    *values: float,
    name: str = "rate",
    against: tuple[float, ...] = (),
    better: Better = "higher",
    reach: Bound | None = None,
) -> Measurement:
    return Measurement(
        name=name,
        unit="tasks/s",
        better=better,
        values=list(values),
        against_name="limit" if against else None,
        against=list(against),
        reach=reach,
    )


def report(*measurements: Measurement, error: str | None = None) -> Report:
    answer = Answer(
        question="q",
        title="A <question> & more",
        about="About.",
        measurements=list(measurements),
        notes=["a | b"],
        seconds=1,
        error=error,
    )
    return Report(
        started_at="2030-01-01T00:00:00Z", quick=False, runs=3, machine={"cpu": "a | b"}, settings={}, answers=[answer]
    )
