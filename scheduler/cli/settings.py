"""`dts config`: look at the configuration that a process would run with."""

from __future__ import annotations

import sys

from cyclopts import App

from scheduler import config as configuration
from scheduler.cli import exits
from scheduler.cli.options import Config
from scheduler.cli.processes import load

app = App(name="config", help="Check or show the configuration, from every source.")


@app.command
def check(*, config: Config = None) -> int:
    """Say everything that is wrong with the configuration; exit 78 if anything is."""
    if load({"config": config}) is None:
        return exits.CONFIG
    sys.stdout.write("ok\n")
    return exits.OK


@app.command
def show(*, config: Config = None) -> int:
    """Print every setting and where it comes from, without secrets."""
    loaded = load({"config": config})
    if loaded is None:
        return exits.CONFIG
    sys.stdout.write(configuration.show(loaded))
    return exits.OK
