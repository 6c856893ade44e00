"""Every command with its help. Only imported when a command is not one of the plainly written process commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from cyclopts import App, Parameter

from scheduler.cli import commands, doctor, migrate, settings
from scheduler.cli.flags import COMMON, PROCESSES
from scheduler.cli.options import Concurrency, Config, DatabaseUrl, LogFormat, LogLevel, RedisUrl, TaskUser

app = App(
    name="dts",
    help="""Runs commands on time, once, on many machines, and can always say what happened and why.

Start with `dts up`: everything in one process tree, on servers that it brings along.""",
    version_flags=["--version"],
)


def settings_of_worker(argv: list[str]) -> dict[str, object]:
    """Return what flags set that are written unusually; exits if they ask for help, or having said what is wrong."""
    words = ["worker", *argv]
    command, bound, _ = app.parse_args(words)
    if command is not worker:  # help, or a command of its own
        raise SystemExit(app(words, result_action="return_int_as_exit_code_else_zero"))
    return _settings("worker", _flags(bound.arguments))


def _run(command: str, given: Mapping[str, object]) -> int:
    flags = _flags(given)
    if command == "worker":
        from scheduler.cli import guard  # noqa: PLC0415 - not needed for help

        guard([f"{flag}={value}" for flag, value in flags.items()])  # as one word: a value may begin with a dash
    from scheduler.cli.processes import run_command  # noqa: PLC0415 - not needed for help

    return run_command(command, _settings(command, flags))


def _flags(given: Mapping[str, object]) -> dict[str, object]:
    return {"--" + name.replace("_", "-"): value for name, value in given.items() if value is not None}


def _settings(command: str, flags: Mapping[str, object]) -> dict[str, object]:
    known = COMMON | PROCESSES[command]
    return {known[flag]: value for flag, value in flags.items()}


@app.command
def up(  # noqa: PLR0913 - one per flag
    *,
    data_dir: Annotated[
        str | None,
        Parameter(help="Where everything is kept. Default: /var/lib/dts for root, else ~/.local/state/dts."),
    ] = None,
    port: Annotated[int | None, Parameter(help="HTTP port on 127.0.0.1; 0: any free one. Default: 8080.")] = None,
    workers: Annotated[int | None, Parameter(help="Worker processes. Default: 1.")] = None,
    concurrency: Concurrency = None,
    task_user: TaskUser = None,
    config: Config = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> int:
    """Run everything: PostgreSQL and Valkey (unless URLs are given), API, scheduler and workers.

    Prints `ready http://127.0.0.1:PORT` on stdout once work is accepted. Ctrl-C or SIGTERM lets running commands
    finish and stops; the next start on the same directory knows everything again.
    """
    return _run("up", dict(locals()))


@app.command
def api(  # noqa: PLR0913 - one per flag
    *,
    host: Annotated[str | None, Parameter(help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, Parameter(help="HTTP port. Default: 8080.")] = None,
    drain_timeout: Annotated[str | None, Parameter(help="How long requests may take when stopping.")] = None,
    development: Annotated[
        bool | None,
        Parameter(negative=(), help="Ask nobody for credentials, and listen to this machine only."),
    ] = None,
    config: Config = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> int:
    """Run the HTTP API against given servers; any number of them."""
    return _run("api", dict(locals()))


@app.command
def scheduler(
    *,
    lock_ttl: Annotated[str | None, Parameter(help="How long a silent leader keeps its lead. Default: 5s.")] = None,
    config: Config = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> int:
    """Run a scheduler against given servers; one leads, the others stand by."""
    return _run("scheduler", dict(locals()))


@app.command
def worker(  # noqa: PLR0913 - one per flag
    *,
    name: Annotated[str | None, Parameter(help="What people call it. Default: the host's name.")] = None,
    queues: Annotated[str | None, Parameter(help="Queues to serve, separated by commas. Default: default.")] = None,
    concurrency: Concurrency = None,
    labels: Annotated[str | None, Parameter(help="What this machine offers: key=value,key=value.")] = None,
    lease: Annotated[str | None, Parameter(help="How long it may be silent before its work is taken.")] = None,
    drain_timeout: Annotated[str | None, Parameter(help="How long commands may finish when stopping.")] = None,
    task_user: TaskUser = None,
    state_dir: Annotated[str | None, Parameter(help="Where files of running attempts are kept.")] = None,
    api_url: Annotated[str | None, Parameter(help="What commands get as DTS_API_URL.")] = None,
    config: Config = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> int:
    """Run a worker, under its guard, against given servers; any number of them."""
    return _run("worker", dict(locals()))


app.command(migrate.app)
app.command(doctor.app)
app.command(settings.app)
commands.register(app)
