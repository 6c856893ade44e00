"""Carrying claimed runs from their claim to their committed outcome.

    claim → files → start → gone → slot free → output kept → outcome decided → committed

Nothing here runs per task but one coroutine that waits for one future. Everything periodic (timeouts, live output,
checkpoints) is one look at all attempts, once a second while there are any; see `Attempts.look`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from random import Random
from typing import TypeVar

import anyio
import anyio.abc
import msgspec

from scheduler.broker import Broker, BrokerUnavailable
from scheduler.domain.clock import Clock
from scheduler.domain.redaction import needles_of
from scheduler.domain.retry import AttemptEnd, Stop, decide
from scheduler.domain.run import Claim, Outcome
from scheduler.domain.task import TaskSpec, decode_spec
from scheduler.failpoints import Point, reach
from scheduler.service import BRISK, Wake, sleep
from scheduler.store.checkpoints import Checkpoints
from scheduler.store.database import PASSING
from scheduler.store.execution import Executions
from scheduler.telemetry import get_logger
from scheduler.worker.attempt import Attempt
from scheduler.worker.capture import Capture
from scheduler.worker.executors import Executor
from scheduler.worker.keeping import Keeper
from scheduler.worker.launch import Launcher, output_limit
from scheduler.worker.page import LeasePage
from scheduler.worker.scratch import Scratch
from scheduler.worker.secrets import Opener, names_of
from scheduler.worker.slots import Slots
from scheduler.worker.spawn import SpawnError
from scheduler.worker.spawners import LeaseLost
from scheduler.worker.stopping import bring_to_end, kill_until_gone

_T = TypeVar("_T")

_LOOK = 1.0
_SUSPECT_WAIT = 2.0
"""Seconds for which a suspect waits here for another one to end, and after which it is offered again otherwise."""

_NOT_BEGUN = AttemptEnd(kind="drained")

_log = get_logger("worker")


class Attempts:
    """The attempts of one incarnation, by fence. Coroutines that they need run in `group`."""

    def __init__(  # noqa: PLR0913  # the collaborators of one execution, wired in one place
        self,
        *,
        group: anyio.abc.TaskGroup,
        executors: Mapping[str, Executor],
        launcher: Launcher,
        scratch: Scratch,
        opener: Opener,
        keeper: Keeper,
        checkpoints: Checkpoints,
        executions: Executions,
        broker: Broker,
        slots: Slots,
        clock: Clock,
        page: LeasePage,
        look_at_processes: Callable[[], None],
    ) -> None:
        self._group = group
        self._executors = executors
        self._launcher = launcher
        self._scratch = scratch
        self._opener = opener
        self._keeper = keeper
        self._checkpoints = checkpoints
        self._executions = executions
        self._broker = broker
        self._slots = slots
        self._clock = clock
        self._page = page
        self._look_at_processes = look_at_processes
        self._random = Random()  # noqa: S311  # jitter
        self._attempts: dict[int, Attempt] = {}
        self._drained = False
        self._suspect: int | None = None
        self._suspect_gone = anyio.Event()
        self._next_look = math.inf
        self._none = anyio.Event()
        self.look_wake = Wake()

    @property
    def fences(self) -> list[int]:
        """The fences of all attempts whose outcome is not committed."""
        return list(self._attempts)

    @property
    def running(self) -> int:
        """How many commands execute."""
        return sum(attempt.running for attempt in self._attempts.values())

    def adopt(self, claim: Claim) -> None:
        """Take responsibility for a claimed run; `run` must follow. After a drain it does not begin."""
        try:
            spec = decode_spec(claim.spec)
        except msgspec.MsgspecError as error:
            _log.error("stored task cannot be read", run_id=str(claim.run_id), error=str(error))
            spec = TaskSpec(name="?", command=[], executor="?")
        if not self._attempts:
            self._none = anyio.Event()
        attempt = self._attempts[claim.fence] = Attempt(claim, spec)
        if self._drained:
            attempt.stop = "drained"

    async def run(self, claim: Claim) -> None:
        """Execute an adopted claim and report how it ended. Holds one slot, which it gives back as soon as it can."""
        attempt = self._attempts[claim.fence]
        started_at = self._clock.now()
        try:
            try:
                end = await self._execute(attempt)
            except Exception as error:  # noqa: BLE001  # others execute here, too
                end = await self._end_after(attempt, error)
            finally:
                self._slots.release()
            if end is not None and not attempt.abandoned:
                await self._report(attempt, end, started_at)
        finally:
            del self._attempts[claim.fence]
            self._slots.finished()
            if not self._attempts:
                self._none.set()
            if self._suspect == claim.fence:
                self._suspect = None
                self._suspect_gone.set()
            if attempt.files is not None:
                self._scratch.forget(attempt.files)
            if attempt.capture is not None:
                attempt.capture.close()

    def stop(self, fence: int, why: Stop) -> None:
        """Make an attempt end. The first reason stands, but losing the lease overrides all."""
        attempt = self._attempts.get(fence)
        if attempt is None or attempt.stop == "lease" or (attempt.stop is not None and why != "lease"):
            return
        first = attempt.stop is None
        attempt.stop = why
        if first and attempt.execution is not None and not attempt.execution.gone.done():
            self._bring_to_end(attempt)

    def _bring_to_end(self, attempt: Attempt) -> None:
        self._group.start_soon(bring_to_end, attempt, self._keeper, name=f"stop {attempt.claim.fence}")

    def stop_all(self, why: Stop) -> None:
        """Make every attempt end; at a drain also those that are adopted later."""
        self._drained |= why == "drained"
        for fence in self.fences:
            self.stop(fence, why)

    def abandon(self, fence: int) -> None:
        """Kill an attempt that is no longer this worker's; nothing is reported of it."""
        attempt = self._attempts.get(fence)
        if attempt is None:
            return
        attempt.abandoned = True
        attempt.stop = "lease"
        if attempt.execution is not None and not attempt.execution.gone.done():
            attempt.execution.kill()

    def abandon_if_running(self, fence: int) -> None:
        """Abandon an attempt that the database says is not ours, unless that is because its outcome is committed."""
        attempt = self._attempts.get(fence)
        if attempt is not None and (attempt.execution is None or not attempt.execution.gone.done()):
            _log.error("a run was taken away while it executed", run_id=str(attempt.claim.run_id), fence=fence)
            self.abandon(fence)

    def kill_all(self, why: Stop) -> None:
        """Make every attempt end now."""
        for fence, attempt in list(self._attempts.items()):
            self.stop(fence, why)
            if attempt.execution is not None and not attempt.execution.gone.done():
                attempt.execution.kill()

    async def wait_until_none(self) -> None:
        """Wait until every outcome is committed."""
        while self._attempts:
            await self._none.wait()

    async def look(self) -> float | None:
        """Look after all running attempts; return the seconds until the next look, None if there is nothing to see."""
        self._look_at_processes()
        now = self._clock.monotonic()
        self._next_look = math.inf
        for fence, attempt in list(self._attempts.items()):
            if not attempt.running:
                continue
            if attempt.stop is None:
                if attempt.spec.stall_timeout is not None:
                    attempt.meet(self._keeper.checkpoint_version(attempt), now)
                why = attempt.overdue(now)
                if why is not None:
                    self.stop(fence, why)
            if now - attempt.started >= _LOOK and self._keeper.has_news(attempt):
                self._group.start_soon(self._keeper.keep_live, attempt, name=f"keep {fence}")
            if attempt.stop is None:  # one that is being ended is due no more
                self._next_look = min(self._next_look, max(attempt.due(), now))
        if self._attempts:
            self._next_look = min(self._next_look, now + _LOOK)
        return None if self._next_look == math.inf else self._next_look - now

    async def _execute(self, attempt: Attempt) -> AttemptEnd | None:
        """Run the command; None if it is not to be reported."""
        claim = attempt.claim
        if claim.suspect and not await self._be_the_suspect(claim.fence):
            return _NOT_BEGUN
        try:
            await self._start(attempt)
        except LeaseLost:
            return None
        except SpawnError as error:
            return self._not_started(attempt, error)
        if attempt.execution is None:
            return AttemptEnd(kind="cancelled") if attempt.stop == "cancelled" else _NOT_BEGUN
        await attempt.execution.gone
        await reach(Point.COMMAND_ENDED)
        return attempt.end(asked=self._page.asked)

    def _not_started(self, attempt: Attempt, error: SpawnError) -> AttemptEnd:
        attempt.capture = attempt.capture or Capture(64 * 1024)
        self._keeper.complain(attempt, str(error))
        return AttemptEnd(kind="spawn_error", detail=error.what)

    async def _end_after(self, attempt: Attempt, error: Exception) -> AttemptEnd:
        """Make an attempt end after an error that nobody foresaw, and say how it did.

        Raises the error again where the command may execute without our knowing: for that only the worker's own end
        can answer.
        """
        if attempt.ordered and attempt.execution is None:
            raise error
        _log.error("an attempt failed in its worker", run_id=str(attempt.claim.run_id), exc_info=error)
        if attempt.execution is None:
            return self._not_started(attempt, SpawnError("internal", "it was not started: the worker's log says why"))
        await kill_until_gone(attempt.execution)
        return AttemptEnd(kind="lost")

    async def _be_the_suspect(self, fence: int) -> bool:
        """Wait for a while until no other suspect executes here; say whether that came."""
        with anyio.move_on_after(_SUSPECT_WAIT):
            while self._suspect is not None:
                await self._suspect_gone.wait()
        if self._suspect is not None:
            return False
        self._suspect = fence
        self._suspect_gone = anyio.Event()
        return True

    async def _start(self, attempt: Attempt) -> None:
        claim, spec = attempt.claim, attempt.spec
        executor = self._executors.get(spec.executor)
        if executor is None:
            raise SpawnError("no_executor", f"this worker does not offer the executor {spec.executor}")
        identity = attempt.identity = self._launcher.identity(spec)
        try:
            files = attempt.files = self._scratch.files_for(identity)
        except OSError as error:
            raise SpawnError("scratch_not_made", f"the directory for its files: {error}") from error
        capture = attempt.capture = Capture(output_limit(spec), str(self._scratch.path))
        secrets: dict[str, str] = {}
        if names := names_of(spec):
            secrets = await self._insist(attempt, lambda: self._opener.open(claim, names)) or {}
            capture.redact(needles_of(secrets.values()))
        if claim.has_checkpoint:
            await self._restore_checkpoint(attempt)
        if attempt.stop is not None:
            return
        launch = self._launcher.launch(claim, spec, identity, files, secrets)
        attempt.asked_before, attempt.met = self._page.asked, files.seen
        attempt.ordered = True
        execution = await executor.start(launch, spec, claim.fence, capture)
        await reach(Point.COMMAND_STARTED)
        attempt.execution = execution
        if attempt.stop == "lease":  # it came while the command was starting
            attempt.execution.kill()
        elif attempt.stop is not None:
            self._bring_to_end(attempt)
        attempt.started = self._clock.monotonic()
        if spec.timeout is not None:
            attempt.deadline = attempt.started + float(spec.timeout)
        if min(attempt.due(), attempt.started + _LOOK) < self._next_look:
            self._next_look = min(attempt.due(), attempt.started + _LOOK)
            self.look_wake.set()

    async def _restore_checkpoint(self, attempt: Attempt) -> None:
        assert attempt.files is not None
        assert attempt.identity is not None
        data = await self._insist(attempt, lambda: self._checkpoints.load(attempt.claim.run_id))
        if data is not None:
            try:
                self._scratch.restore(attempt.files, data, attempt.identity)
            except OSError as error:
                raise SpawnError("checkpoint_not_restored", f"checkpoint: {error}") from error

    async def _report(self, attempt: Attempt, end: AttemptEnd, started_at: datetime) -> None:
        outputs = await self._keep(attempt, end)
        if attempt.abandoned:
            return
        claim, spec, now = attempt.claim, attempt.spec, self._clock.now()
        decision = decide(
            end,
            spec.retry,
            failures=claim.failures,
            losses=claim.losses,
            first_started_at=claim.first_started_at,
            now=now,
            on_lost=spec.on_lost,
            rng=self._random,
        )
        outcome = Outcome(
            run_id=claim.run_id,
            fence=claim.fence,
            state=decision.state,
            attempt_outcome=decision.attempt_outcome,
            reason=decision.reason,
            exit_code=end.exit_code,
            retry_in=_SUSPECT_WAIT if end is _NOT_BEGUN and claim.suspect else decision.retry_in,
            started_at=started_at,
            finished_at=now,
            outputs=outputs,
            output_tail=None if attempt.capture is None else attempt.capture.tail(),
        )
        try:
            await self._insist(attempt, lambda: self._commit(outcome))
        except Exception as error:  # noqa: BLE001  # without what may be to blame; fails that too, this worker ends
            _log.error("an outcome was refused", run_id=str(claim.run_id), exc_info=error)
            bare = msgspec.structs.replace(outcome, outputs=None, output_tail=None)
            await self._insist(attempt, lambda: self._commit(bare))

    async def _keep(self, attempt: Attempt, end: AttemptEnd) -> bytes | None:
        """Write what is left of what the command printed, and its checkpoint if it may need that; return its outputs.

        Whatever fails here costs the attempt no more than what could not be kept.
        """
        outputs = None
        try:
            outputs = self._keeper.outputs_of(attempt) if end.kind == "exit" else None
            if attempt.capture is not None:
                attempt.capture.finish()
                unfinished = end.kind != "exit" or end.exit_code != 0
                await self._insist(attempt, lambda: self._keeper.keep_rest(attempt, checkpoint=unfinished))
        except Exception as error:  # noqa: BLE001  # as above
            _log.error("what a run has left was not kept", run_id=str(attempt.claim.run_id), exc_info=error)
        return outputs

    async def _commit(self, outcome: Outcome) -> None:
        finished = await self._executions.finish(outcome)
        if not finished.applied:
            _log.warning("outcome came too late", run_id=str(outcome.run_id), fence=outcome.fence, state=outcome.state)
        elif finished.state == "pending":
            try:
                await self._broker.publish("wake:control")
            except BrokerUnavailable:
                return  # the leader looks now and then

    async def _insist(self, attempt: Attempt, call: Callable[[], Awaitable[_T]]) -> _T | None:
        """Call until the database answers, however late: the fence decides whether that still counts.

        None once the attempt is known to be somebody else's.
        """
        failures = 0
        while not attempt.abandoned:
            try:
                return await call()
            except PASSING as error:
                failures += 1
                if failures == 1:
                    _log.warning("the database is away or too slow", run_id=str(attempt.claim.run_id), error=str(error))
                await sleep(BRISK.delay(failures))
        return None
