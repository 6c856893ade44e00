"""Staying with a run until it has ended: its output is ours, its exit code is ours, and so may be its interruption."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from scheduler.cli import exits
from scheduler.cli.connection import Remote, say

if TYPE_CHECKING:
    from scheduler.client import Client, LogEvent, Run

OnInterrupt = Annotated[
    Literal["ask", "cancel", "leave"],
    Parameter(help="What Ctrl-C does to the run that is waited for. Default: ask on a terminal, else leave it alone."),
]


def follow(remote: Remote, run_id: str, timeout: float | None = None, on_interrupt: OnInterrupt = "ask") -> int:
    """Show a run's output until it has ended; return the exit code that stands for its end."""
    with remote.connect(patient=True) as client, _terminated_like_interrupted(on_interrupt):
        try:
            run = _stay(client, run_id, timeout)
        except KeyboardInterrupt:
            if not _wants_cancelled(run_id, on_interrupt):
                say(f"no longer waiting; the run goes on. To end it: dts run cancel {run_id}")
                raise
            _cancel(client, run_id)
            raise
    if run.state != "completed":
        say(f"run {run_id} {run.state}" + (f": {run.reason}" if run.reason else ""))
    return exit_code_of(run)


def _stay(client: Client, run_id: str, timeout: float | None) -> Run:
    if timeout is None:
        copy_output(client.stream_logs(run_id))
    run = client.wait(run_id, timeout=timeout)
    if timeout is not None:
        copy_output(client.stream_logs(run_id))
    return run


def _wants_cancelled(run_id: str, on_interrupt: OnInterrupt) -> bool:
    from scheduler.cli.output import ask, is_interactive  # noqa: PLC0415 - rarely needed

    if on_interrupt != "ask":
        return on_interrupt == "cancel"
    if not is_interactive():
        return False
    try:
        return ask(f"\ncancel run {run_id} too? [y/N] ") in ("y", "yes")
    except KeyboardInterrupt:  # once more means: let me go
        return False


def _cancel(client: Client, run_id: str) -> None:
    """Cancel a run, and stay until it has ended, unless interrupted again."""
    from scheduler.client import Conflict  # noqa: PLC0415 - rarely needed

    try:
        client.cancel_run(run_id)
        run = client.wait(run_id)
    except Conflict:
        run = client.run(run_id)  # it has ended meanwhile
    except KeyboardInterrupt:
        say(f"run {run_id} was asked to end")
        raise
    say(f"run {run_id} {run.state}")


@contextmanager
def _terminated_like_interrupted(on_interrupt: OnInterrupt) -> Iterator[None]:
    """Where an interruption cancels the run, so does SIGTERM: it is how a build system stops its jobs."""
    if on_interrupt != "cancel":
        yield
        return

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def copy_output(events: Iterable[LogEvent]) -> None:
    """Copy a run's output to ours, stream by stream, until it has ended."""
    from scheduler.client import LogAttempt, LogChunk  # noqa: PLC0415 - not needed for help

    for event in events:
        if isinstance(event, LogChunk):
            target = sys.stderr if event.stream == "stderr" else sys.stdout
            target.write(event.text)
            target.flush()
        elif isinstance(event, LogAttempt):
            say(f"attempt {event.attempt}")
        else:
            say(f"{event.bytes} bytes of output were dropped here")


def exit_code_of(run: Run) -> int:
    """Return the exit code that says how a run ended."""
    if run.state == "completed":
        return exits.OK
    kind, _, detail = (run.reason or "").partition(":")
    if kind == "signal":
        named = signal.Signals.__members__.get("SIG" + detail.removeprefix("SIG"))
        return 128 + named if named is not None else exits.FAILURE
    return run.exit_code or exits.FAILURE
