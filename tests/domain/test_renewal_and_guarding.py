from __future__ import annotations

import pytest

from scheduler.domain.guarding import demand
from scheduler.domain.renewal import ClaimCalls, MissingRuns

DEADLINE, ASK_AT = 100.0, 97.0


@pytest.mark.parametrize(
    ("now", "asked", "empty", "what", "look_at"),
    [
        (50.0, 0.0, False, "nothing", ASK_AT),
        (97.0, 0.0, False, "ask", DEADLINE),
        (98.0, DEADLINE, False, "nothing", DEADLINE),
        (98.0, 88.0, False, "ask", DEADLINE),
        (98.0, 0.0, True, "nothing", DEADLINE),
        (100.0, DEADLINE, False, "kill", 101.0),
        (500.0, 0.0, False, "kill", 501.0),
        (100.0, 0.0, True, "nothing", 0.0),
    ],
)
def test_what_a_lease_demands_of_the_guard(now: float, asked: float, empty: bool, what: str, look_at: float) -> None:
    assert demand(now, deadline=DEADLINE, ask_at=ASK_AT, asked=asked, tree_empty=empty) == (what, look_at)


def test_without_a_lease_the_guard_demands_nothing() -> None:
    assert demand(50.0, deadline=0.0, ask_at=0.0, asked=0.0, tree_empty=False) == ("nothing", 0.0)


def test_a_run_whose_claim_may_still_be_answered_is_not_given_up() -> None:
    calls, missing = ClaimCalls(), MissingRuns()
    first = calls.begin()
    assert missing.given_up([7], set(), calls) == []
    calls.begin()
    assert missing.given_up([7], set(), calls) == []
    calls.end(first)
    assert missing.given_up([7], set(), calls) == [7]


def test_a_claim_that_began_after_the_renewal_was_sent_but_was_committed_before_it_is_waited_for() -> None:
    calls, missing = ClaimCalls(), MissingRuns()
    late = calls.begin()  # the renewal is under way already
    assert missing.given_up([7], set(), calls) == []
    assert missing.given_up([7], set(), calls) == []
    calls.end(late)
    assert missing.given_up([7], {7}, calls) == []


def test_a_run_is_never_given_up_at_first_sight_or_once_it_is_held() -> None:
    calls, missing = ClaimCalls(), MissingRuns()
    assert missing.given_up([7], set(), calls) == []
    assert missing.given_up([7], {7}, calls) == []
    assert missing.given_up([7], set(), calls) == []
