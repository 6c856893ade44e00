"""Running the worker's event loop on a second thread, away from the first.

A worker that runs as root takes on a task's user for the length of each spawn. Signals to a process are judged by its
first thread's credentials, and so are `kill -9 -1` and `pkill -u`: were that the thread which changes, a task could hit
the worker in the middle of a spawn. So the first thread stays who it is and only waits for signals. Orphans become
children of that first thread, too, which tells them from the commands that were started here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread

Main = Callable[[anyio.Event], Coroutine[Any, Any, None]]


def apart(main: Main) -> Main:
    """Return a `main(stop)` for the first thread that runs `main`, with a loop and a `stop` of its own, on another."""

    async def first_thread(stop: anyio.Event) -> None:
        other = _Other(main)
        thread = threading.Thread(target=other.run, name="worker")
        thread.start()
        async with anyio.create_task_group() as group:
            group.start_soon(_pass_on, stop, other, name="pass on stop")
            try:
                await anyio.to_thread.run_sync(thread.join, abandon_on_cancel=True)
            except BaseException:
                other.cancel()
                thread.join()  # its tasks are cancelled; they end in their own time, as they would on this thread
                raise
            group.cancel_scope.cancel()
        if other.error is not None:
            raise other.error

    return first_thread


async def _pass_on(stop: anyio.Event, other: _Other) -> None:
    await stop.wait()
    other.stop()


class _Other:
    """The event loop of the other thread, and what may be said to it from outside."""

    def __init__(self, main: Main) -> None:
        self._main = main
        self._started = threading.Event()
        self._token: anyio.lowlevel.EventLoopToken | None = None
        self._stop: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            anyio.run(self._supervised)
        except BaseException as error:  # noqa: BLE001  # handed to the first thread, which raises it
            self.error = error
        finally:
            self._started.set()

    async def _supervised(self) -> None:
        self._token = anyio.lowlevel.current_token()
        self._stop = anyio.Event()
        with anyio.CancelScope() as self._scope:
            self._started.set()
            await self._main(self._stop)

    def stop(self) -> None:
        self._started.wait()
        if self._stop is not None:
            self._call(self._stop.set)

    def cancel(self) -> None:
        self._started.wait()
        if self._scope is not None:
            self._call(self._scope.cancel)

    def _call(self, function: Callable[[], None]) -> None:
        try:
            anyio.from_thread.run_sync(function, token=self._token)
        except (RuntimeError, anyio.RunFinishedError):  # it has ended meanwhile
            return
