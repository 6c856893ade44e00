"""Prometheus metrics: an aioprometheus registry behind handles that are safe and cheap enough for hot paths.

    started = Metrics().counter("dts_runs_started_total", "Runs started.", "queue")
    started.labels(queue).inc()

The library writes label values as they are, so one quote or newline would break every scrape: here they are
escaped and shortened first. Each metric keeps at most `MAX_SERIES` label sets; further ones share the set
`other`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from aioprometheus.collectors import Collector, Counter, Gauge, Histogram, Registry
from aioprometheus.histogram import Histogram as Buckets
from aioprometheus.renderer import render

MAX_SERIES = 1000
MAX_LABEL = 128
OTHER = "other"

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds, from one statement to a minute."""


def clean_label(value: object) -> str:
    """Return `value` as a label may hold it: escaped, at most `MAX_LABEL` characters."""
    text = str(value)[:MAX_LABEL].encode("utf-8", "replace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Number:
    """One series of a counter or gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, by: float = 1) -> None:
        """Add `by`; on a counter it must not be negative."""
        self.value += by

    def set(self, value: float) -> None:
        """Set a gauge."""
        self.value = value


class Distribution:
    """One series of a histogram."""

    __slots__ = ("buckets",)

    def __init__(self, bounds: Sequence[float]) -> None:
        self.buckets = Buckets(*bounds, float("inf"))

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.buckets.observe(value)


_Series = TypeVar("_Series", Number, Distribution)


class Metric(Generic[_Series]):
    """A family of series that differ in the values of the same labels."""

    def __init__(
        self,
        collector: Collector,
        names: tuple[str, ...],
        make: Callable[[], _Series],
    ) -> None:
        self._collector = collector
        self._names = names
        self._make: Callable[[], _Series] = make
        self._series: dict[tuple[object, ...], _Series] = {}

    def labels(self, *values: object) -> _Series:
        """Return the series for these label values, in the order in which the metric named its labels."""
        series = self._series.get(values)
        return series if series is not None else self._add(values)

    def _add(self, values: tuple[object, ...]) -> _Series:
        if len(values) != len(self._names):
            raise ValueError(f"{self._collector.name} has the labels {self._names}, not {len(values)} values")
        if len(self._series) >= MAX_SERIES:
            values = (OTHER,) * len(values)
            if values in self._series:
                return self._series[values]
        series = self._series[values] = self._make()
        return series

    def clear(self) -> None:
        """Forget every series: what is not set again is not shown again."""
        self._series.clear()
        self._collector.values.clear()

    def flush(self) -> None:
        """Copy every series to the library's collector, which renders them."""
        for values, series in self._series.items():
            labels = dict(zip(self._names, map(clean_label, values), strict=True))
            self._collector.set_value(labels, series.value if isinstance(series, Number) else series.buckets)


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self._registry = Registry()
        self._metrics: list[Metric[Number] | Metric[Distribution]] = []

    def counter(self, name: str, doc: str, *labels: str) -> Metric[Number]:
        """Register a counter; its name ends in `_total`."""
        return self._number(Counter(name, doc, registry=self._registry), labels)

    def gauge(self, name: str, doc: str, *labels: str) -> Metric[Number]:
        """Register a gauge; its name ends in its unit, if it has one."""
        return self._number(Gauge(name, doc, registry=self._registry), labels)

    def histogram(
        self, name: str, doc: str, *labels: str, bounds: Sequence[float] = LATENCY_BUCKETS
    ) -> Metric[Distribution]:
        """Register a histogram with these upper bounds (ascending; infinity is added)."""
        collector = Histogram(name, doc, registry=self._registry, buckets=(*bounds, float("inf")))
        metric = Metric(collector, labels, lambda: Distribution(bounds))
        self._metrics.append(metric)
        return metric

    def render(self) -> tuple[bytes, dict[str, str]]:
        """Return the exposition in text format 0.0.4, and its HTTP headers."""
        for metric in self._metrics:
            metric.flush()
        content, headers = render(self._registry, [])
        return content, headers

    def _number(self, collector: Collector, labels: tuple[str, ...]) -> Metric[Number]:
        metric = Metric(collector, labels, Number)
        self._metrics.append(metric)
        return metric
