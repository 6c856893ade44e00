from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.bucket import Bucket, Rate


def test_a_burst_passes_and_then_one_for_each_interval() -> None:
    rate = Rate(2.0, 3.0)
    bucket = Bucket(rate, 0.0)
    assert [bucket.take(rate, 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.take(rate, 0.5) == 0.0
    assert bucket.take(rate, 0.75) == 0.25


@given(st.lists(st.floats(0, 10), max_size=50), st.floats(0.1, 100), st.floats(1, 20))
def test_in_any_stretch_no_more_pass_than_the_burst_and_what_trickles_in(
    gaps: list[float], per_second: float, burst: float
) -> None:
    rate = Rate(per_second, burst)
    bucket, now, passed = Bucket(rate, 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        passed += bucket.take(rate, now) == 0.0
    assert passed <= burst + now * per_second + 1e-6
