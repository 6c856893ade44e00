"""`python -m scheduler.cli.worker [--flag value]…` is the worker proper, which its guard starts; nobody else should."""

from __future__ import annotations

import sys

from scheduler import lifeline
from scheduler.cli import exits, flags


def main(argv: list[str]) -> int:
    """Run the worker until it is stopped; return its exit code."""
    lifeline.end_when_interrupted()
    settings = flags.parse("worker", argv)
    if settings is None:
        from scheduler.cli.app import settings_of_worker  # noqa: PLC0415 - help, mistakes and unusual spellings only

        settings = settings_of_worker(argv)
    from scheduler.cli.processes import load  # noqa: PLC0415
    from scheduler.cli.roles import run_role  # noqa: PLC0415

    loaded = load(settings)
    return exits.CONFIG if loaded is None else run_role("worker", loaded.config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
