from __future__ import annotations

import pytest

from bench.peers.running import PeerFailed
from bench.questions.peers_fire import ENTRIES, lags, next_minute


def test_a_lag_runs_from_the_second_that_an_entry_was_due() -> None:
    stamps = [6000 + 60 * minute + 20 + 0.25 for minute in (0, 1) for _ in range(ENTRIES)]
    assert lags(stamps, 20, 6000, 2) == [250.0] * (2 * ENTRIES)


def test_fires_before_the_first_whole_minute_do_not_count() -> None:
    stamps = [5990.0, *(6000.5 for _ in range(ENTRIES))]
    assert lags(stamps, 0, 6000, 1) == [500.0] * ENTRIES


@pytest.mark.parametrize("count", [ENTRIES - 1, ENTRIES + 1])
def test_a_fire_too_few_or_too_many_leaves_no_figure(count: int) -> None:
    with pytest.raises(PeerFailed, match=f"{count} of {ENTRIES} fires in minute 1"):
        lags([6000.5] * count, 0, 6000, 1)


@pytest.mark.parametrize(("now", "then"), [(0.0, 60.0), (49.9, 60.0), (50.0, 120.0), (60.0, 120.0)])
def test_everybody_has_ten_seconds_to_get_ready_for_a_whole_minute(now: float, then: float) -> None:
    assert next_minute(now) == then
