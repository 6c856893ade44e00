"""Seeded histories keep every promise; with a rule of the protocol left out, some do not."""

from __future__ import annotations

import time

import msgspec
import pytest

from tests.model.scenarios import SCENARIOS, Scenario
from tests.model.search import broken_by, explain, first_failure, first_failure_on_every_processor

HISTORIES = 100_000
ENOUGH = 1_500
"""Seeds of one scenario, of which the broken protocol must fail at least one."""


def test_a_hundred_thousand_histories_keep_every_promise() -> None:
    began = time.perf_counter()
    failure = first_failure_on_every_processor(range(HISTORIES))
    seconds = time.perf_counter() - began
    assert failure is None, f"\n{failure}\nAgain: python -m tests.model --trace --seed {failure.seed}"
    print(f"{HISTORIES / seconds:.0f} histories a second")  # noqa: T201  # shown with -s


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_scenario_holds_and_fails_if_its_rule_is_left_out(scenario: Scenario) -> None:
    for seed in range(100):
        plan = msgspec.structs.replace(scenario.plan, seed=seed)
        violation = broken_by(plan)
        assert violation is None, f"\n{explain(plan)}"
    bugs = frozenset({scenario.bug})
    for seed in range(ENOUGH):
        violation = broken_by(msgspec.structs.replace(scenario.plan, seed=seed), bugs)
        if violation is not None:
            assert int(violation.partition(":")[0]) in scenario.breaks, violation
            return
    pytest.fail(f"nothing was noticed in {ENOUGH} histories")


def test_a_failing_seed_is_told_with_as_little_as_makes_it_fail() -> None:
    failure = first_failure(range(20_000), frozenset({"no guard"}))
    assert failure is not None
    assert len(failure.plan.faults) <= 2
    assert len(failure.plan.jobs) <= 2
    assert len(failure.trace) <= 40
    assert "begins on machine" in str(failure)
    assert str(failure).startswith("5: ")
