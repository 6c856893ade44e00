"""One attempt: what is known of it while this worker has it, and how its command ended."""

from __future__ import annotations

import math

import anyio

from scheduler.domain.retry import AttemptEnd, Stop, action_on_loss, end_of
from scheduler.domain.run import Claim
from scheduler.domain.signals import name_of
from scheduler.domain.task import TaskSpec
from scheduler.worker.capture import Capture
from scheduler.worker.executors import Execution
from scheduler.worker.identity import Identity
from scheduler.worker.scratch import Files, Version


class Attempt:
    """An attempt from its claim until its outcome is committed. Times are monotonic seconds."""

    __slots__ = (
        "abandoned", "asked_before", "capture", "claim", "deadline", "execution", "files", "identity", "lock", "met",
        "ordered", "saved_at", "spec", "started", "stop", "trimmed", "unkept",
    )  # fmt: skip

    def __init__(self, claim: Claim, spec: TaskSpec) -> None:
        self.claim = claim
        self.spec = spec
        self.capture: Capture | None = None
        self.execution: Execution | None = None
        self.files: Files | None = None
        self.identity: Identity | None = None
        self.started = math.inf
        self.deadline = math.inf
        self.stop: Stop | None = None
        self.abandoned = False  # its fence is no longer ours: nothing is reported
        self.asked_before = 0.0  # for which deadline the guard had asked tasks to end, before it began
        self.lock: anyio.Lock | None = None  # of what is written while it runs, from the first such write on
        self.trimmed = 0
        self.met: Version | None = None  # of its checkpoint, when it was last looked at
        self.saved_at = -math.inf  # when another was met
        self.ordered = False  # its executor was told to start it: without an execution, who knows whether it runs
        self.unkept = False  # keeping what it produces has failed: that is tried once more when it has ended

    @property
    def running(self) -> bool:
        """Whether its command executes."""
        return self.execution is not None and self.execution.running

    def meet(self, version: Version | None, now: float) -> None:
        """Take note of the checkpoint that it has now: a new one is a sign of life."""
        if version != self.met:
            self.met, self.saved_at = version, now

    def overdue(self, now: float) -> Stop | None:
        """Say why it must end now, if it must."""
        if now >= self.deadline:
            return "timeout"
        if (stall := stall_limit(self.spec)) is not None and self.execution is not None:
            return "stalled" if now - self._alive_at(self.execution) >= stall else None
        return None

    def due(self) -> float:
        """Return when it will be overdue, as far as is known now."""
        if (stall := stall_limit(self.spec)) is None or self.execution is None:
            return self.deadline
        return min(self.deadline, self._alive_at(self.execution) + stall)

    def _alive_at(self, execution: Execution) -> float:
        return max(execution.printed_at, self.saved_at)

    def end(self, *, asked: float) -> AttemptEnd:
        """Say how its command ended, once it has; `asked` is for which deadline the guard has asked tasks to end."""
        assert self.execution is not None
        code, number = self.execution.exit_code, self.execution.exit_signal
        name = None if number is None else name_of(number)
        greedy = self.execution.out_of_memory
        return end_of(
            self.stop,
            exit_code=code,
            signal=name,
            on_lost=action_on_loss(self.spec.retry.rules, self.spec.on_lost),
            out_of_memory=greedy,
            asked_by_guard=asked != self.asked_before,
        )


def stall_limit(spec: TaskSpec) -> float | None:
    """Return the seconds without a sign of life after which the command counts as stalled."""
    return None if spec.stall_timeout is None else float(spec.stall_timeout)
