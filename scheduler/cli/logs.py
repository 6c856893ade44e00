"""`dts logs`: what a run has printed, or prints."""

from __future__ import annotations

import sys
from itertools import takewhile
from typing import Annotated, Literal

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import FLAG, REMOTE, Remote
from scheduler.cli.following import copy_output

app = App(name="logs")


@app.default
def logs(
    run: Annotated[str, Parameter(help="Run id.")],
    /,
    *,
    follow: Annotated[bool, FLAG, Parameter(name=("--follow", "-f"), help="Go on until the run has ended.")] = False,
    attempt: Annotated[
        int | None, Parameter(help="Of this attempt alone. Default: the newest, and with -f those that follow it.")
    ] = None,
    stream: Annotated[Literal["stdout", "stderr"] | None, Parameter(help="Only this stream.")] = None,
    remote: Remote = REMOTE,
) -> int:
    """Print what a run's command has written, byte for byte; with `-f`, as it writes.

    Following keeps the streams apart: its stderr goes to stderr. With `--json` each piece is an object of its own.
    """
    from scheduler.client import LogAttempt  # noqa: PLC0415 - not needed for help

    with remote.connect() as client:
        if not follow:
            sys.stdout.flush()
            sys.stdout.buffer.write(client.logs(run, attempt=attempt, stream=stream))
            return exits.OK
        client.run(run)
    with remote.connect(patient=True) as client:
        events = client.stream_logs(run, attempt=attempt, stream=stream)
        if attempt is not None:
            events = takewhile(lambda event: not isinstance(event, LogAttempt), events)
        if remote.json:
            out = remote.output()
            for event in events:
                out.data(event)
                sys.stdout.flush()
        else:
            copy_output(events)
    return exits.OK
