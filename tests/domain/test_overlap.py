"""What a new run does about the task's active ones."""

from __future__ import annotations

import pytest

from scheduler.domain.overlap import BUFFER_LIMIT, Verdict, admit, admit_in_turn
from scheduler.domain.task import Overlap


@pytest.mark.parametrize(
    ("overlap", "active", "verdict"),
    [
        ("skip", 0, Verdict()),
        ("skip", 1, Verdict(refused="overlap")),
        ("buffer_one", 0, Verdict()),
        ("buffer_one", 1, Verdict(waits=True)),
        ("buffer_one", 2, Verdict(refused="overlap")),
        ("buffer_all", 0, Verdict()),
        ("buffer_all", BUFFER_LIMIT - 1, Verdict(waits=True)),
        ("buffer_all", BUFFER_LIMIT, Verdict(refused="buffer_full")),
        ("cancel_other", 0, Verdict()),
        ("cancel_other", 3, Verdict(waits=True, cancel="cancel")),
        ("terminate_other", 0, Verdict()),
        ("terminate_other", 3, Verdict(cancel="terminate")),
        ("allow_all", 5000, Verdict()),
    ],
)
def test_the_policy_decides_by_the_number_of_active_runs(overlap: Overlap, active: int, verdict: Verdict) -> None:
    assert admit(overlap, active) == verdict


@pytest.mark.parametrize("overlap", ["skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other"])
def test_catching_up_runs_one_by_one_whatever_the_policy(overlap: Overlap) -> None:
    assert admit_in_turn(overlap, 0) == Verdict()
    assert admit_in_turn(overlap, 1) == Verdict(waits=True)
    assert admit_in_turn(overlap, BUFFER_LIMIT) == Verdict(refused="buffer_full")


def test_catching_up_runs_side_by_side_if_all_are_allowed() -> None:
    assert admit_in_turn("allow_all", 50) == Verdict()
