from __future__ import annotations

import pytest

from bench.model import Against, Bound, Sample, collect, number, percentile
from tests.bench.support import measurement


def test_rounds_become_one_measurement_per_name_in_order() -> None:
    rounds = [
        [Sample(name="b", value=1, unit="s"), Sample(name="a", value=10, unit="s", against=Against("limit", 20))],
        [Sample(name="a", value=30, unit="s", against=Against("limit", 40)), Sample(name="b", value=3, unit="s")],
    ]
    b, a = collect(rounds)
    assert (b.name, b.values, b.ratio) == ("b", [1, 3], None)
    assert (a.name, a.values, a.against) == ("a", [10, 30], [20, 40])


def test_the_ratio_is_the_median_of_each_rounds_own_ratio() -> None:
    # The third round ran on a machine twice as slow: its ratio is as good as any other.
    assert measurement(100, 110, 45, against=(200, 200, 100)).ratio == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("bound", "keeps"),
    [
        (Bound("ratio", least=0.5), True),
        (Bound("ratio", least=0.51), False),
        (Bound("value", most=100), True),
        (Bound("value", most=99), False),
        (None, None),
    ],
)
def test_a_bound_is_judged_on_medians(bound: Bound | None, keeps: bool | None) -> None:
    assert measurement(90, 100, 200, against=(180, 200, 400)).keeps(bound) is keeps


def test_a_bound_on_a_ratio_says_nothing_where_nothing_was_measured_beside() -> None:
    assert measurement(1).keeps(Bound("ratio", least=0.5)) is None


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentiles_are_values_that_occurred(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share) == value


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1234.6, "1,235"), (12.34, "12.3"), (1.234, "1.23"), (0.051, "0.051")]
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text
