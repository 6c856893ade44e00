"""How a process starts and stops: signals become one stop event, and a supervisor is told what goes on."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from scheduler.lifeline import INTERRUPTED
from scheduler.telemetry import get_logger

_log = get_logger("process")


class Interrupted(Exception):
    """A second stop signal came while draining: leave at once."""


Main = Callable[[anyio.Event], Coroutine[Any, Any, None]]
"""What a process does until the event is set."""


def run_process(main: Main) -> int:
    """Run `main(stop)` as this process. SIGTERM or SIGINT sets `stop`; a second one leaves at once.

    Returns the exit code: 0 once `main` has returned, INTERRUPTED after a second signal. Errors propagate.
    """

    async def supervised() -> int:
        stop = anyio.Event()
        code = 0
        try:
            async with anyio.create_task_group() as group:
                # A signal that comes before the receiver is open has its default action, which is right:
                # there is nothing to drain yet.
                group.start_soon(_watch_signals, stop, name="signals")
                await main(stop)
                group.cancel_scope.cancel()
        except* Interrupted:
            code = INTERRUPTED
        return code

    return anyio.run(supervised)


async def _watch_signals(stop: anyio.Event) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            if stop.is_set():
                raise Interrupted
            stop.set()
            _log.info("stopping", signal=signal.Signals(number).name)
            notify("STOPPING=1")


def notify(state: str) -> None:
    """Tell a supervisor (`READY=1`, `STOPPING=1`, `STATUS=…`) by the sd_notify protocol, if one listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(state.encode(), address)
    except OSError as error:  # a supervisor that went away is no reason to stop working
        _log.warning("cannot notify the supervisor", error=str(error))
