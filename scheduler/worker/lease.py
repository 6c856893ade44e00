"""Keeping the lease, and keeping to it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import anyio

from scheduler.domain.clock import Clock
from scheduler.domain.lease import LeaseClock
from scheduler.domain.renewal import ClaimCalls, MissingRuns
from scheduler.domain.run import Outcome
from scheduler.failpoints import Point, reach
from scheduler.service import Wake
from scheduler.store.database import StoreUnavailable
from scheduler.store.execution import Executions
from scheduler.store.registration import Lacking, Registration, Renewed
from scheduler.telemetry import get_logger
from scheduler.worker.execution import Attempts
from scheduler.worker.page import LeasePage

_log = get_logger("worker")


class LeaseKeeper:
    """Renews the lease of one incarnation and does what the answers ask for.

    `claims` counts the calls that claim: (begun, ended); a run whose claim may still be under way is not missing yet.
    """

    def __init__(  # noqa: PLR0913  # the collaborators of one lease, wired in one place
        self,
        *,
        worker_id: UUID,
        registration: Registration,
        attempts: Attempts,
        executions: Executions,
        lease: LeaseClock,
        page: LeasePage,
        clock: Clock,
        claims: ClaimCount,
        drain: Callable[[], None],
    ) -> None:
        self._worker_id = worker_id
        self._registration = registration
        self._attempts = attempts
        self._executions = executions
        self._lease = lease
        self._page = page
        self._clock = clock
        self._claims = claims
        self._drain = drain
        self._missing = MissingRuns()
        self.lost = anyio.Event()
        self.expiry_wake = Wake()

    async def renew(self) -> float:
        """Renew once; return the seconds until the next time."""
        terms = self._lease.terms
        sent = self._clock.boottime()
        try:
            with anyio.fail_after(terms.renew_every):
                await reach(Point.LEASE_RENEWING)
                answer = await self._registration.renew(self._worker_id, self._attempts.running, self._attempts.fences)
                await reach(Point.LEASE_RENEWED, StoreUnavailable)
        except TimeoutError as error:
            raise StoreUnavailable("the lease was not renewed in time") from error
        if answer is None:
            if not self.lost.is_set():
                _log.error("this worker was taken for dead", worker_id=str(self._worker_id))
            self._lose()
            return terms.renew_every
        first = self._lease.deadline <= 0
        self._lease.renewed(sent)
        self._page.hold_until(self._lease.deadline, ask_at=self._lease.ask_at)
        if first:
            self._page.wake_guard()
        self.expiry_wake.set()
        await self._obey(answer)
        return max(0.0, sent + terms.renew_every - self._clock.boottime())

    async def expire(self) -> float | None:
        """Do what the lease demands by now; return the seconds until it demands more."""
        now = self._clock.boottime()
        phase = self._lease.phase(now)
        if phase == "none":
            return None
        if phase == "ending":
            if self._attempts.fences:
                _log.error("the lease could not be renewed: commands are asked to end")
            self._attempts.stop_all("lease")
        elif phase in {"killing", "over"}:
            self._lose()
            return None
        return self._lease.next_change(now)

    def _lose(self) -> None:
        self._attempts.kill_all("lease")
        self.lost.set()

    async def _obey(self, answer: Renewed) -> None:
        for fence in answer.cancel:
            self._attempts.stop(fence, "cancelled")
        for fence in answer.lost:
            self._attempts.abandon_if_running(fence)
        if answer.drain_requested:
            self._drain()
        lacking = {run.fence: run for run in answer.lacking}
        held = set(self._attempts.fences)
        given_up = self._missing.given_up(lacking, held, self._claims)
        with anyio.move_on_after(self._lease.terms.renew_every):  # the lease waits for this
            async with anyio.create_task_group() as group:
                for fence in given_up:
                    group.start_soon(self._requeue, lacking[fence], name=f"requeue {fence}")

    async def _requeue(self, run: Lacking) -> None:
        _log.warning("a claimed run never arrived and is requeued", run_id=str(run.run_id), fence=run.fence)
        outcome = Outcome(
            run_id=run.run_id,
            fence=run.fence,
            state="pending",
            attempt_outcome="requeued",
            reason="claim_lost",
            started_at=run.started_at,
            finished_at=run.started_at,
        )
        with suppress(StoreUnavailable):  # the next renewal tells of it again
            await self._executions.finish(outcome)


class ClaimCount(ClaimCalls):
    """Which calls that claim are under way, and the moment when none is."""

    def __init__(self) -> None:
        super().__init__()
        self._none = anyio.Event()

    def end(self, number: int) -> None:
        """Note that a call has ended, and that what it brought is held."""
        super().end(number)
        if self.none:
            self._none.set()

    async def wait_until_none(self) -> None:
        """Wait until no call is under way."""
        while not self.none:
            self._none = anyio.Event()
            await self._none.wait()
