"""`dts checkpoint save|load`: checkpoints for tasks written in shell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import REMOTE, Remote, failure

app = App(
    name="checkpoint",
    help="""Keep where a command stands, so that its next attempt can go on there, on whatever machine.

Inside a task: `echo "$page" | dts checkpoint save`, and at its start `page=$(dts checkpoint load) || page=1`.""",
)


@app.command
def save(file: Annotated[Path | None, Parameter(help="What to store. Default: standard input.")] = None, /) -> int:
    """Store a checkpoint of at most 1 MiB, whole or not at all."""
    from scheduler.client import checkpoint  # noqa: PLC0415 - not needed for help

    if checkpoint.checkpoint_file() is None:
        raise failure("DTS_CHECKPOINT_FILE is not set: this works inside a task only")
    try:
        checkpoint.save_bytes(sys.stdin.buffer.read() if file is None else file.read_bytes())
    except (OSError, ValueError) as error:
        raise failure(str(error)) from None
    return exits.OK


@app.command
def load(
    *,
    run: Annotated[str | None, Parameter(help="Of this run, from the server. Default: of the task we are in.")] = None,
    remote: Remote = REMOTE,
) -> int:
    """Print the checkpoint; exit 1 if there is none."""
    from scheduler.client import checkpoint  # noqa: PLC0415 - not needed for help

    if run is not None:
        with remote.connect() as client:
            data = client.load_checkpoint(run)
    elif checkpoint.checkpoint_file() is None:
        raise failure("DTS_CHECKPOINT_FILE is not set: outside of a task, say whose with --run")
    else:
        data = checkpoint.load_bytes()
    if data is None:
        return exits.FAILURE
    sys.stdout.buffer.write(data)
    return exits.OK
