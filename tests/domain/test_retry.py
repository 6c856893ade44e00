"""What becomes of a run when an attempt has ended."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.domain.loss import BUDGET
from scheduler.domain.retry import AttemptEnd, Decision, action_on_loss, backoff, decide, end_of, reason_of
from scheduler.domain.run import TRANSITIONS
from scheduler.domain.task import Retry, RetryRule

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def end(kind: Any = "exit", **rest: Any) -> AttemptEnd:
    if kind == "exit":
        rest.setdefault("exit_code", 3)
    return AttemptEnd(kind=kind, **rest)


def after(
    ended: AttemptEnd, *, failures: int = 0, losses: int = 0, elapsed: float = 0, on_lost: Any = "retry", **policy: Any
) -> Decision:
    return decide(
        ended,
        Retry(**policy),
        failures=failures,
        losses=losses,
        first_started_at=NOW - timedelta(seconds=elapsed),
        now=NOW,
        on_lost=on_lost,
        rng=random.Random(1),
    )


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (end(exit_code=0), "exit:0"),
        (end(exit_code=137), "exit:137"),
        (end("signal", signal="SEGV"), "signal:SEGV"),
        (end("timeout", signal="TERM"), "timeout"),
        (end("oom", signal="KILL"), "oom"),
        (end("stalled", exit_code=1), "stalled"),
        (end("lost"), "lost"),
        (end("cancelled"), "cancelled"),
        (end("spawn_error", detail="executable_not_found"), "spawn_error:executable_not_found"),
    ],
)
def test_every_end_has_a_machine_readable_reason(ended: AttemptEnd, reason: str) -> None:
    assert reason_of(ended) == reason


def test_exit_zero_completes() -> None:
    assert after(end(exit_code=0)) == Decision(state="completed", reason="exit:0", attempt_outcome="completed")


@pytest.mark.parametrize("kind", ["exit", "timeout", "oom", "stalled", "spawn_error"])
def test_a_failure_without_retries_ends_failed(kind: Any) -> None:
    decision = after(end(kind))
    assert (decision.state, decision.attempt_outcome) == ("failed", "failed")


def test_a_failure_with_attempts_left_waits_for_the_next() -> None:
    decision = after(end(), max_attempts=3, initial_interval=10.0, failures=1)
    assert (decision.state, decision.attempt_outcome, decision.reason) == ("pending", "failed", "exit:3")
    assert 0 < decision.retry_in <= 20


def test_exhausted_retries_end_in_the_dead_letter_queue() -> None:
    assert after(end(), max_attempts=3, failures=2).state == "dead_letter"


def test_a_retry_that_would_come_too_late_is_not_made() -> None:
    assert after(end(), max_attempts=3, max_elapsed=60.0, elapsed=61).state == "dead_letter"
    assert after(end(), max_attempts=3, max_elapsed="2m", elapsed=61).state == "pending"


def test_a_cancelled_attempt_cancels_the_run_whatever_the_policy() -> None:
    rules = [RetryRule(action="dead_letter")]
    decision = after(end("cancelled"), max_attempts=5, rules=rules)
    assert (decision.state, decision.attempt_outcome, decision.reason) == ("cancelled", "cancelled", "cancelled")


def test_a_drained_attempt_goes_back_at_once_and_spends_nothing() -> None:
    decision = after(end("drained"), failures=5, losses=5)
    assert (decision.state, decision.attempt_outcome, decision.retry_in) == ("pending", "requeued", 0)


def test_losses_have_a_budget_of_their_own() -> None:
    for losses in range(BUDGET - 1):
        decision = after(end("lost"), losses=losses, failures=99)
        assert (decision.state, decision.attempt_outcome, decision.reason) == ("pending", "lost", "lost")
    assert after(end("lost"), losses=BUDGET - 1).state == "dead_letter"


def test_an_uncharged_loss_never_exhausts_the_budget() -> None:
    decision = after(end("lost", charged=False), losses=BUDGET + 5)
    assert (decision.state, decision.attempt_outcome) == ("pending", "requeued")


def test_on_lost_decides_the_first_loss() -> None:
    assert after(end("lost"), on_lost="fail").state == "failed"
    assert after(end("lost"), on_lost="dead_letter").state == "dead_letter"


RULES = [
    RetryRule(exit_codes=[2, 64], action="fail"),
    RetryRule(exit_codes=[75], action="retry"),
    RetryRule(signals=["SEGV"], reasons=["signal"], action="dead_letter"),
    RetryRule(reasons=["spawn_error:executable_not_found", "oom"], action="dead_letter"),
    RetryRule(action="fail"),
]


@pytest.mark.parametrize(
    ("ended", "state"),
    [
        (end(exit_code=64), "failed"),
        (end(exit_code=75), "pending"),
        (end("signal", signal="SEGV"), "dead_letter"),
        (end("signal", signal="TERM"), "failed"),  # only the last rule, without conditions, matches
        (end("oom", signal="SEGV"), "dead_letter"),
        (end("spawn_error", detail="executable_not_found"), "dead_letter"),
        (end("spawn_error", detail="workdir"), "failed"),
        (end("lost"), "pending"),  # no rule that does not name it touches a loss
    ],
)
def test_the_first_rule_that_matches_decides(ended: AttemptEnd, state: str) -> None:
    assert after(ended, max_attempts=3, rules=RULES).state == state


def test_a_rule_to_retry_makes_no_attempts_beyond_the_budget() -> None:
    assert after(end(exit_code=75), rules=RULES).state == "failed"
    assert after(end(exit_code=75), rules=RULES, max_attempts=3, failures=2).state == "dead_letter"


def test_a_rule_that_names_losses_decides_about_them() -> None:
    assert after(end("lost"), rules=[RetryRule(reasons=["lost"], action="fail")]).state == "failed"
    assert after(end("lost"), rules=[RetryRule(reasons=["lost"], action="retry")], on_lost="fail").state == "pending"


@pytest.mark.parametrize("stop", ["drained", "lease"])
@pytest.mark.parametrize(
    ("rules", "on_lost", "state"),
    [
        ([], "retry", "pending"),
        ([RetryRule(reasons=["lost"], action="fail")], "retry", "failed"),
        (
            [RetryRule(reasons=["lost"], action="dead_letter"), RetryRule(reasons=["lost"], action="fail")],
            "retry",
            "dead_letter",
        ),
        ([RetryRule(reasons=["lost"], action="retry")], "fail", "pending"),
        ([RetryRule(action="fail"), RetryRule(reasons=["oom"], action="fail")], "retry", "pending"),
        ([RetryRule(exit_codes=[143], reasons=["lost"], action="retry")], "fail", "failed"),
    ],
)
def test_an_attempt_taken_from_its_worker_ends_as_the_rules_for_losses_say(
    stop: Any, rules: list[RetryRule], on_lost: Any, state: str
) -> None:
    ended = end_of(stop, exit_code=143, signal=None, on_lost=action_on_loss(rules, on_lost))
    assert after(ended, rules=rules, on_lost=on_lost).state == state


def test_the_wait_doubles_up_to_its_cap_and_is_spread_over_the_whole_of_it() -> None:
    policy = Retry(initial_interval=2.0, backoff=2.0, max_interval=60.0)
    for failures, cap in [(0, 2), (1, 4), (4, 32), (5, 60), (900, 60), (10**6, 60)]:
        waits = [backoff(policy, failures, random.Random(seed)) for seed in range(200)]
        assert max(waits) <= cap
        assert max(waits) > 0.9 * cap
        assert min(waits) < 0.1 * cap


@settings(deadline=None)
@given(
    kind=st.sampled_from(
        ["exit", "signal", "timeout", "oom", "stalled", "spawn_error", "lost", "cancelled", "drained"]
    ),
    code=st.integers(0, 255),
    failures=st.integers(0, 20),
    losses=st.integers(0, 20),
    attempts=st.integers(1, 20),
    on_lost=st.sampled_from(["retry", "fail", "dead_letter"]),
)
def test_every_decision_is_a_transition_of_a_running_run(
    kind: Any, code: int, failures: int, losses: int, attempts: int, on_lost: Any
) -> None:
    decision = after(
        end(kind, exit_code=code), failures=failures, losses=losses, on_lost=on_lost, max_attempts=attempts
    )
    assert decision.state in TRANSITIONS["running"]
    assert decision.retry_in >= 0
    assert decision.state != "pending" or kind != "exit" or failures + 1 < attempts
