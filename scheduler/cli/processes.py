"""Runs the command of one process, whoever parsed its flags."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from scheduler import config
from scheduler.cli import exits


def run_command(command: str, settings: Mapping[str, object]) -> int:
    """Run `up`, `api` or `scheduler` with settings by name (`config`: the file); return its exit code."""
    loaded = load(settings)
    if loaded is None:
        return exits.CONFIG
    if command == "up":
        from scheduler.cli.up import up  # noqa: PLC0415 - the roles do not need it

        return up(loaded)
    from scheduler.cli.roles import run_role  # noqa: PLC0415

    return run_role(command, loaded.config)


def load(settings: Mapping[str, object]) -> config.Loaded | None:
    """Return the configuration, or None after having said on stderr everything that is wrong with it."""
    flags = dict(settings)
    file = flags.pop("config", None)
    try:
        return config.load(flags, file=None if file is None else str(file))
    except config.ConfigError as error:
        for line in error.errors:
            sys.stderr.write(f"dts: {line}\n")
        return None
