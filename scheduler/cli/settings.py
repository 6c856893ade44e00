"""`dts config`: look at the configuration that a process would run with."""

from __future__ import annotations

import sys

from cyclopts import App

from scheduler import config as configuration
from scheduler.cli import exits
from scheduler.cli.connection import JSON
from scheduler.cli.options import Config
from scheduler.cli.processes import load

app = App(name="config", help="Check or show the configuration, from every source.")


@app.command
def check(*, json: JSON = False, config: Config = None) -> int:
    """Say everything that is wrong with the configuration; exit 78 if anything is."""
    from scheduler.cli.output import Output  # noqa: PLC0415 - not needed for help

    if load({"config": config}) is None:
        return exits.CONFIG
    Output(json=json).done({"ok": True}, "ok")
    return exits.OK


@app.command
def show(*, json: JSON = False, config: Config = None) -> int:
    """Print every setting and where it comes from, without secrets: as TOML, with `--json` one setting a line."""
    from scheduler.cli.output import Output  # noqa: PLC0415 - not needed for help

    loaded = load({"config": config})
    if loaded is None:
        return exits.CONFIG
    if json:
        for setting in configuration.shown(loaded):
            Output(json=True).data(setting)
        return exits.OK
    sys.stdout.write(configuration.show(loaded))
    return exits.OK
