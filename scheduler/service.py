"""How a role lives: supervised task groups, the one loop, and a graceful drain.

What a role does in the background for as long as it lives is started by a `Service` and bears a name; what lives
within one call, in a group of that call, bears one too. Everything periodic is a step function that `run_loop` calls:
it returns when it wants to be called again, and may be woken earlier. A step that fails is logged, counted, shown in
`Health` and called again after a capped, fully jittered delay; it never ends its role. Services nest: the inner one is
drained and ends before the outer one's tasks are cancelled.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec

from scheduler.health import Health
from scheduler.telemetry import get_logger

_T = TypeVar("_T")

Step = Callable[[], Awaitable[float | None]]
"""One round of a loop; returns seconds until the next round, or None to wait until woken."""

_log = get_logger("service")

_WORTH_A_LINE = 8  # failures to reach what may still be starting beside us: about a second


class Unavailable(Exception):
    """A dependency is away. Retryable; logged in one line, without a traceback."""


async def sleep(seconds: float) -> None:
    """Wait between two attempts or looks, never for something that could be awaited."""
    await anyio.sleep(seconds)


class Backoff(msgspec.Struct, frozen=True):
    """Full jitter: after n failures in a row, wait between zero and `base · growthⁿ` seconds, at most `cap`."""

    base: float = 0.05
    cap: float = 10.0
    growth: float = 2.0

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after `failures` ≥ 1 failures in a row."""
        ceiling = min(self.cap, self.base * self.growth ** min(failures, 64))
        return random.uniform(0, ceiling)  # noqa: S311 - jitter is no secret


STEADY = Backoff()
"""For what dies again and again: it is started every ten seconds at most."""

BRISK = Backoff(cap=1.0)
"""For loops: what was away for however long is used again within a second of its return."""

EAGER = Backoff(base=0.02, cap=1.0, growth=1.4)
"""For starting up, when what is missing is expected within moments; else as `BRISK`."""


class Wake:
    """An event that waiting for it clears; set many times, it wakes once. One waiter only."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the waiter, or let its next wait return at once."""
        self._event.set()

    async def wait(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - waking up late is no failure
        """Return True once set (and clear it), or False after `timeout` seconds."""
        if self._event.is_set() or (timeout is not None and timeout <= 0):
            await anyio.lowlevel.checkpoint()  # a scope that has timed out already costs far more
        else:
            with anyio.move_on_after(timeout):
                await self._event.wait()
        if not self._event.is_set():
            return False
        self._event = anyio.Event()
        return True


def _note_failure(name: str, error: Exception, failures: int) -> None:
    if failures & (failures - 1):  # the 1st, 2nd, 4th, 8th… in a row: an outage fills no disk
        return
    if isinstance(error, Unavailable):
        _log.warning("unavailable", component=name, failures=failures, error=str(error))
    else:
        _log.error("step failed", component=name, failures=failures, exc_info=error)


async def run_loop(
    name: str,
    step: Step,
    *,
    wake: Wake,
    health: Health,
    stop: anyio.Event | None = None,
    on_error: Callable[[Exception], None] | None = None,
    backoff: Backoff = BRISK,
    back: Wake | None = None,
) -> None:
    """Call `step` until `stop` is set, each time after the delay it returned or when woken.

    An exception from `step` is passed to `on_error`, after which the loop backs off; a wake does not shorten
    that, or a broken step would spin as fast as it is woken. Only `back` does: set it when what the step needs has
    come back, and (to end a backoff) after `stop`.
    """
    failures = 0
    while stop is None or not stop.is_set():
        try:
            delay = await step()
        except Exception as error:  # noqa: BLE001 - a failing step is retried, whatever failed
            failures += 1
            health.report(name, False, f"{type(error).__name__}: {error}")
            _note_failure(name, error, failures)
            if on_error is not None:
                on_error(error)
            await _pause(backoff.delay(failures), stop, back)
            continue
        if failures:
            _log.info("recovered", component=name, failures=failures)
            failures = 0
        health.report(name, True)
        await wake.wait(delay)
    health.forget(name)


async def _pause(seconds: float, stop: anyio.Event | None, back: Wake | None) -> None:
    if back is not None:
        await back.wait(seconds)
        return
    if stop is None:
        await sleep(seconds)
        return
    with anyio.move_on_after(seconds):
        await stop.wait()


async def until_available(
    name: str,
    call: Callable[[], Awaitable[_T]],
    *,
    health: Health,
    retry_on: type[Exception] | tuple[type[Exception], ...] = Unavailable,
    backoff: Backoff = EAGER,
) -> _T:
    """Return what `call` returns once it no longer raises `retry_on`: how a role waits for a dependency."""
    failures = 0
    while True:
        try:
            result = await call()
        except retry_on as error:
            failures += 1
            health.report(name, False, str(error))
            if failures >= _WORTH_A_LINE:
                _note_failure(name, error if isinstance(error, Unavailable) else Unavailable(str(error)), failures)
            await sleep(backoff.delay(failures))
        else:
            health.report(name, True)
            return result


@asynccontextmanager
async def cancelled_by(stop: anyio.Event, *, patience: float = 0.0) -> AsyncIterator[anyio.CancelScope]:
    """Cancel what is in the block `patience` seconds after `stop` is set; the scope says whether that came to it."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                await stop.wait()
                await sleep(patience)
                scope.cancel()

            group.start_soon(watch, name="stop")
            yield scope
            group.cancel_scope.cancel()


class Service:
    """A named group of supervised tasks; leaving it cancels what still runs, `drain` first lets it finish.

    async with Service("control", health=health) as service:
        wake = service.loop("promote", promoter.step)
        service.start("listen", listener.run)
        await stop.wait()
        await service.drain(5.0)
    """

    def __init__(self, name: str, *, health: Health) -> None:
        self.name = name
        self.stopping = anyio.Event()
        self._health = health
        self._group: anyio.abc.TaskGroup
        self._wakes: list[Wake] = []
        self._draining = 0
        self._drained = Wake()

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self.stopping.set()
        self._group.cancel_scope.cancel()
        return await self._group.__aexit__(kind, error, trace)

    def start(
        self, name: str, run: Callable[..., Coroutine[Any, Any, Any]], *args: object, drains: bool = False
    ) -> None:
        """Run `run(*args)` in the background. An error in it is logged and ends the whole service.

        `drains` says that it ends by itself once `stopping` is set: then `drain` waits for it.
        """
        self._group.start_soon(self._supervise, name, run, args, drains, name=f"{self.name}:{name}")
        self._draining += drains

    def loop(
        self,
        name: str,
        step: Step,
        *,
        wake: Wake | None = None,
        on_error: Callable[[Exception], None] | None = None,
        backoff: Backoff = BRISK,
        back: Wake | None = None,
        drains: bool = True,
    ) -> Wake:
        """Start `run_loop` over `step`, to end with `drain`; return the wake that makes it run now.

        One that does not drain goes on until the service is left: what others need in order to end.
        """
        wake = wake or Wake()
        if drains:
            self._wakes += [wake] if back is None else [wake, back]

        async def run() -> None:
            await run_loop(
                f"{self.name}.{name}",
                step,
                wake=wake,
                health=self._health,
                stop=self.stopping if drains else None,
                on_error=on_error,
                backoff=backoff,
                back=back,
            )

        self.start(name, run, drains=drains)
        return wake

    async def drain(self, seconds: float) -> bool:
        """Ask everything to stop and wait at most `seconds` for what drains; True if all of that has ended.

        Loops end after their current step. What still runs is cancelled when the service is left.
        """
        self.stopping.set()
        for wake in self._wakes:
            wake.set()
        with anyio.move_on_after(seconds):
            while self._draining:
                await self._drained.wait()
        return not self._draining

    async def _supervise(
        self, name: str, run: Callable[..., Coroutine[Any, Any, Any]], args: tuple[object, ...], drains: bool
    ) -> None:
        try:
            await run(*args)
        except Exception as error:
            self._health.report(f"{self.name}.{name}", False, f"{type(error).__name__}: {error}")
            _log.error("task failed", component=f"{self.name}.{name}", exc_info=error)
            raise
        finally:
            self._draining -= drains
            self._drained.set()
