"""`dts top`: who leads, who works, what waits, what runs, and what went wrong lately, as it changes."""

from __future__ import annotations

import sys
import time
from itertools import islice
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import FLAG, REMOTE, Remote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scheduler.cli.snapshot import Snapshot
    from scheduler.client import Client

app = App(name="top")


@app.default
def top(
    *,
    once: Annotated[bool, FLAG, Parameter(help="Show how it is now, and end.")] = False,
    interval: Annotated[float, Parameter(help="Seconds between two looks.")] = 2.0,
    rows: Annotated[int, Parameter(help="Runs of each kind to show.")] = 10,
    remote: Remote = REMOTE,
) -> int:
    """Show the system as it changes: leader, queues, workers, running runs, recent failures. Ctrl-C ends it.

    In a pipe, or with `--json`, each look is a line of JSON. Queues also tell by how many runs a second they grow.
    """
    from scheduler.cli.snapshot import draw  # noqa: PLC0415 - not needed for help

    with remote.connect(patient=True) as client:
        out = remote.output()
        looks = _looks(client, rows, 0.0 if once else max(0.1, interval))
        if once or not out.pretty:
            for snapshot in islice(looks, 1) if once else looks:
                if out.pretty:
                    out.show(draw(snapshot, None))
                else:
                    out.data(snapshot)
                    sys.stdout.flush()
            return exits.OK
        try:
            with out.live() as show:
                before = None
                for snapshot in looks:
                    show(draw(snapshot, before))
                    before = snapshot
        except KeyboardInterrupt:
            pass  # how one leaves it
    return exits.OK


def _looks(client: Client, rows: int, interval: float) -> Iterator[Snapshot]:
    from scheduler.cli.snapshot import look  # noqa: PLC0415 - not needed for help

    while True:
        yield look(client, rows)
        time.sleep(interval)
