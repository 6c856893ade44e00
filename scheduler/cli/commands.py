"""The commands that talk to a server. Their modules import what they need when they run: `dts --help` stays quick."""

from __future__ import annotations

from cyclopts import App

from scheduler.cli import (
    audit,
    checkpoint,
    context,
    crontab,
    dead_letters,
    events,
    fleet,
    keys,
    logs,
    manual,
    namespaces,
    plan,
    runs,
    secrets,
    submit,
    tasks,
    top,
    workflows,
)


def register(app: App) -> None:
    """Add them to `dts`; `dts worker`, which runs one, also gets `list` and `drain`."""
    for module in (
        submit,
        tasks,
        workflows,
        runs,
        logs,
        dead_letters,
        plan,
        crontab,
        events,
        checkpoint,
        context,
        top,
        keys,
        namespaces,
        secrets,
        audit,
    ):
        app.command(module.app)
    app.command(fleet.queues)
    app.command(manual.completion)
    app.command(manual.man)
    app["worker"].command(fleet.workers)
    app["worker"].command(fleet.drain)
