"""What becomes of a run when one of its attempts has ended.

The wait before a retry is exponential backoff with full jitter (Marc Brooker, "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015):  sleep = random_between(0, min(cap, base · factor ** attempt)).

Failures of the command and losses of the worker have separate budgets. A failure that exhausts `max_attempts` or
`max_elapsed` ends `failed` if the task never asked for retries (`max_attempts` 1), else `dead_letter`; exhausted losses
end `dead_letter`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from scheduler.domain.durations import seconds_of
from scheduler.domain.loss import BUDGET, OnLost
from scheduler.domain.run import RunState
from scheduler.domain.task import Retry, RetryRule, RuleAction

EndKind = Literal["exit", "signal", "timeout", "oom", "stalled", "spawn_error", "lost", "cancelled", "drained"]
Stop = Literal["cancelled", "timeout", "stalled", "drained", "lease"]
"""Why an attempt was made to end. `lease`: it is, or soon may be, somebody else's."""

AttemptOutcome = Literal["completed", "failed", "cancelled", "lost", "requeued"]

REASONS = ("exit", "signal", "timeout", "oom", "stalled", "spawn_error", "lost")
"""What `retry.rules[].reasons` may name: the part of a reason before its colon."""


class AttemptEnd(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How an attempt ended.

    `exit` has `exit_code`; `signal` has `signal`, a name without `SIG`; `spawn_error` has `detail`, a short cause such
    as `executable_not_found`. `timeout`, `oom` and `stalled` may carry the exit code or signal that they led to.
    `cancelled` and `drained` are ends that we asked for. `charged` is False for a loss that is not the run's own doing
    (the worker reported it itself, or several runs died together): it costs nothing.
    """

    kind: EndKind
    exit_code: int | None = None
    signal: str | None = None
    detail: str | None = None
    charged: bool = True


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the run becomes: `state`, `retry_in` seconds to wait if that is `pending`, and a machine-readable `reason`.

    `attempt_outcome` is what the attempt's own record says: `failed` spends one of the failures, `lost` one of the
    losses, `requeued` nothing.
    """

    state: RunState
    reason: str | None
    attempt_outcome: AttemptOutcome
    retry_in: float = 0.0


def reason_of(end: AttemptEnd) -> str:
    """Return `exit:N`, `signal:NAME`, `spawn_error:…` or the bare kind."""
    match end.kind:
        case "exit":
            return f"exit:{end.exit_code}"
        case "signal":
            return f"signal:{end.signal}"
        case "spawn_error":
            return f"spawn_error:{end.detail or 'unknown'}"
        case kind:
            return kind


def action_on_loss(rules: Sequence[RetryRule], on_lost: OnLost) -> OnLost:
    """Return what a task wants done about a loss: what the first rule that matches one says, else `on_lost`.

    A loss has neither exit code nor signal, so whoever finds it gets the same answer.
    """
    return _first_match(rules, AttemptEnd(kind="lost"), "lost") or on_lost


def end_of(
    stop: Stop | None,
    *,
    exit_code: int | None,
    signal: str | None,
    on_lost: OnLost,
    out_of_memory: bool = False,
    asked_by_guard: bool = False,
) -> AttemptEnd:
    """Say how an attempt that had begun has ended: by itself, or because it was made to.

    One that must not begin again is lost when it is taken from its worker or drained: one whose `on_lost` (that is, its
    `action_on_loss`) is another than `retry`.
    `out_of_memory`: something of it was killed for its use of memory. A command that succeeds has coped with that.
    `asked_by_guard`: the guard asked it to end, since its worker did not renew the lease. That is not its own failure.
    """
    if stop is None and asked_by_guard and exit_code != 0:
        stop = "lease"
    if stop is None and out_of_memory and exit_code != 0:
        return AttemptEnd(kind="oom", exit_code=exit_code, signal=signal)
    if stop is None:
        return AttemptEnd(kind="exit" if signal is None else "signal", exit_code=exit_code, signal=signal)
    if stop in {"drained", "lease"} and on_lost != "retry":
        return AttemptEnd(kind="lost", exit_code=exit_code, signal=signal)
    if stop == "lease":
        return AttemptEnd(kind="lost", exit_code=exit_code, signal=signal, charged=False)
    return AttemptEnd(kind=stop, exit_code=exit_code, signal=signal)


def decide(
    end: AttemptEnd,
    policy: Retry,
    *,
    failures: int,
    losses: int,
    first_started_at: datetime,
    now: datetime,
    on_lost: OnLost = "retry",
    rng: random.Random,
) -> Decision:
    """Decide what becomes of the run.

    `failures` and `losses` were spent before this attempt ended; `first_started_at` dates the first attempt since the
    run was created or revived, from which `max_elapsed` counts.
    """
    reason = reason_of(end)
    if end.kind == "exit" and end.exit_code == 0:
        return Decision(state="completed", reason=reason, attempt_outcome="completed")
    if end.kind == "cancelled":
        return Decision(state="cancelled", reason=reason, attempt_outcome="cancelled")
    if end.kind == "drained" or (end.kind == "lost" and not end.charged):
        return Decision(state="pending", reason=reason, attempt_outcome="requeued")
    if end.kind == "lost":
        return _after_loss(action_on_loss(policy.rules, on_lost), losses, reason)
    action = _first_match(policy.rules, end, reason)
    if action in ("fail", "dead_letter"):
        return Decision(state=_END[action], reason=reason, attempt_outcome="failed")
    return _after_failure(policy, failures, (now - first_started_at).total_seconds(), reason, rng)


def backoff(policy: Retry, failures: int, rng: random.Random) -> float:
    """Return the seconds to wait after one more failure than the `failures` before it."""
    longest = seconds_of(policy.max_interval)
    try:
        interval = min(longest, seconds_of(policy.initial_interval) * policy.backoff**failures)
    except OverflowError:
        interval = longest
    return rng.uniform(0.0, interval)


_END: dict[RuleAction, RunState] = {"fail": "failed", "dead_letter": "dead_letter", "retry": "pending"}


def _after_failure(policy: Retry, failures: int, elapsed: float, reason: str, rng: random.Random) -> Decision:
    wait = backoff(policy, failures, rng)
    if failures + 1 < policy.max_attempts and not _too_long(policy, elapsed + wait):
        return Decision(state="pending", reason=reason, attempt_outcome="failed", retry_in=wait)
    state: RunState = "failed" if policy.max_attempts == 1 else "dead_letter"
    return Decision(state=state, reason=reason, attempt_outcome="failed")


def _after_loss(action: OnLost, losses: int, reason: str) -> Decision:
    exhausted = action == "retry" and losses + 1 >= BUDGET
    return Decision(state="dead_letter" if exhausted else _END[action], reason=reason, attempt_outcome="lost")


def _first_match(rules: Sequence[RetryRule], end: AttemptEnd, reason: str) -> RuleAction | None:
    for rule in rules:
        if _matches(rule, end, reason):
            return rule.action
    return None


def _matches(rule: RetryRule, end: AttemptEnd, reason: str) -> bool:
    """Say whether all conditions of a rule hold; one without conditions matches every failure, but no loss."""
    if rule.exit_codes is not None and end.exit_code not in rule.exit_codes:
        return False
    if rule.signals is not None and end.signal not in rule.signals:
        return False
    if rule.reasons is None:
        return end.kind != "lost"
    return reason in rule.reasons or end.kind in rule.reasons


def _too_long(policy: Retry, elapsed: float) -> bool:
    return policy.max_elapsed is not None and elapsed > seconds_of(policy.max_elapsed)
