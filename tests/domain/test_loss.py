from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from scheduler.domain.loss import Lost, judge_losses


def lost(**fields: Any) -> Lost:
    values: dict[str, Any] = {"losses": 0, "suspect": False, "cancel_requested": False, "on_lost": "retry"}
    return Lost(run_id=uuid4(), **(values | fields))


def test_a_run_that_is_lost_alone_is_charged_and_tried_again() -> None:
    [verdict] = judge_losses([lost()])
    assert (verdict.state, verdict.losses, verdict.suspect) == ("pending", 1, False)
    assert verdict.retry_in > 0


def test_runs_that_die_together_are_not_charged_but_become_suspects() -> None:
    for verdict in judge_losses([lost(losses=2), lost()]):
        assert (verdict.state, verdict.suspect, verdict.retry_in) == ("pending", True, 0.0)
    assert [verdict.losses for verdict in judge_losses([lost(losses=2), lost()])] == [2, 0]


def test_a_suspect_is_charged_even_if_others_die_with_it() -> None:
    suspect, other = judge_losses([lost(suspect=True), lost()])
    assert (suspect.losses, other.losses) == (1, 0)


def test_the_third_charged_loss_is_the_last() -> None:
    [verdict] = judge_losses([lost(losses=2)])
    assert (verdict.state, verdict.reason, verdict.losses) == ("dead_letter", "lost", 3)


@pytest.mark.parametrize(("on_lost", "state"), [("fail", "failed"), ("dead_letter", "dead_letter")])
def test_a_task_may_refuse_to_be_tried_again(on_lost: str, state: str) -> None:
    assert [verdict.state for verdict in judge_losses([lost(on_lost=on_lost), lost(on_lost=on_lost)])] == [state, state]


def test_a_requested_cancel_beats_everything() -> None:
    for run in (lost(cancel_requested=True), lost(cancel_requested=True, on_lost="dead_letter", losses=2)):
        [verdict] = judge_losses([run])
        assert (verdict.state, verdict.reason) == ("cancelled", "cancelled")
