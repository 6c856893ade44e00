"""`dts event …`: say that something has happened, and see what has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import DASH, REMOTE, Remote, failure

app = App(name="event", help="Publish events, which start tasks, and list them.")

_STDIN = Path("-")


@app.command
def publish(
    name: Annotated[str, Parameter(help="What has happened: tasks with the schedule `@event NAME` run.")],
    /,
    *,
    payload: Annotated[str | None, Parameter(help="What goes with it, as JSON.")] = None,
    file: Annotated[Path | None, DASH, Parameter(help="Where the payload stands; - is standard input.")] = None,
    remote: Remote = REMOTE,
) -> int:
    """Publish an event. Each task whose schedule is `@event NAME` gets a run.

    For example:

    - `dts submit --name deploy --schedule "@event built" -- ./deploy.sh`
    - `dts event publish built --payload '{"version": "1.4.2"}'`
    """
    if payload is not None and file is not None:
        raise failure("--payload and --file both say what goes with it; give one of them", exits.USAGE)
    try:
        text = payload if file is None else sys.stdin.read() if file == _STDIN else file.read_text(encoding="utf-8")
        value = None if text is None else msgspec.json.decode(text)
    except (OSError, ValueError) as error:
        raise failure(f"the payload cannot be read: {error}", exits.USAGE) from None
    with remote.connect() as client:
        event = client.publish_event(name, value)
        begun = ", ".join(str(run.run_id) for run in event.runs)
        remote.output().done(event, f"{event.name}: started {begun}" if begun else f"{event.name}: started nothing")
    return exits.OK


@app.command(name="list")
def list_events(
    *,
    name: Annotated[str | None, Parameter(help="Only those of this name.")] = None,
    limit: Annotated[int, Parameter(help="How many at most; 0: all.")] = 100,
    remote: Remote = REMOTE,
) -> int:
    """List what was published, newest first."""
    from scheduler.cli.output import at_most  # noqa: PLC0415 - not needed for help

    columns: dict[str, Callable[[Any], object]] = {
        "at": lambda e: e.published_at,
        "name": lambda e: e.name,
        "by": lambda e: e.published_by,
        "runs": lambda e: len(e.runs),
        "event": lambda e: e.id,
    }
    with remote.connect() as client:
        remote.output().rows(at_most(client.events(name=name), limit), columns)
    return exits.OK
