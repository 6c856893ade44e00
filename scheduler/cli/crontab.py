"""`dts crontab import`: every line becomes a recurring task, or says why it cannot."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import DASH, FLAG, REMOTE, Remote, failure, say

if TYPE_CHECKING:
    from scheduler.cli.crontab_plan import Step
    from scheduler.client import Client, Task, TaskSpec
    from scheduler.domain.crontab import CrontabEntry

app = App(name="crontab", help="Take over crontabs.")

_LOCALTIME, _TIMEZONE = Path("/etc/localtime"), Path("/etc/timezone")


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Reading:
    """How to read the files."""

    system: Annotated[
        bool, FLAG, Parameter(help="A user stands before each command, as in /etc/crontab and /etc/cron.d.")
    ] = False
    timezone: Annotated[
        str | None, Parameter(help="IANA zone, where no CRON_TZ line says otherwise. Default: this machine's.")
    ] = None
    queue: Annotated[str | None, Parameter(help="Queue to put the tasks in. Default: default.")] = None
    name_prefix: Annotated[
        str, Parameter(help="Put before the file's name in the tasks' names, to tell apart files named alike.")
    ] = ""


@app.command(name="import")
def import_(
    *files: Annotated[
        Path, DASH, Parameter(help="Crontabs; - for standard input, as in: crontab -l | dts crontab import -")
    ],
    reading: Reading = Reading(),
    dry_run: Annotated[bool, FLAG, Parameter(help="Only say what would be made; needs no server.")] = False,
    prune: Annotated[bool, FLAG, Parameter(help="Delete tasks that earlier imports made of lines now gone.")] = False,
    remote: Remote = REMOTE,
) -> int:
    """Make a recurring task of every line; say which lines cannot be one, and why (exit 1 then).

    Reads five fields, macros, the dialects with seconds or years, `%` as standard input, and lines that set `SHELL`,
    `PATH`, `CRON_TZ` and other variables. `MAILTO` sends no mail: output is kept with each run. Unlike cron, a task
    does not start beside its own last run, and makes up for the newest run missed within an hour.

    Importing a file again, under the same name, changes what was changed in it and nothing else: a line that moved
    keeps its task, an edited line changes its task (also what was edited by other means), and tasks whose lines are
    gone are reported, or deleted by `--prune`: not for a file with nothing in it, nor while it has a line that cannot
    be taken over (but for `@reboot`), which may be the one that they were made of.
    """
    if not files:
        raise failure("say which files; - is standard input", exits.USAGE)
    if "/" in reading.name_prefix:
        raise failure("--name-prefix may have no slash", exits.USAGE)
    crontabs = [_read(file, reading) for file in files]
    names = [crontab.source for crontab in crontabs]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise failure(f"two files are named {doubled!r}; import them apart, with different --name-prefix", exits.USAGE)
    if prune and (empty := next((crontab.file for crontab in crontabs if crontab.empty), None)):
        why = f"{empty} is empty: --prune would delete all tasks that were made of it"
        raise failure(f"{why}; if they shall go: dts task list --tag crontab, dts task delete", exits.USAGE)
    if dry_run:
        rows = [row for crontab in crontabs for row in _planned(crontab)]
    else:
        with remote.connect() as client:
            rows = _import(client, crontabs, prune=prune)
    remote.output().rows(rows, COLUMNS, empty="there is no line in it that could be a task")
    refused = sum(row["problem"] is not None for row in rows)
    kept = sum(_KEPT in row["notes"] for row in rows)
    left = sum(row["result"] == "left over" for row in rows) - kept
    if kept:
        say(f"{kept} tasks may be of lines that could not be taken over: --prune keeps them until these can be")
    if left:
        say(f"{left} tasks were made of lines that are gone; --prune deletes them")
    if refused:
        say(f"{refused} of {len(rows)} lines could not be taken over")
    return exits.FAILURE if refused else exits.OK


@dataclass(frozen=True, slots=True)
class _Crontab:
    """One file. `source` is what its tasks are known by; where it is `empty`, it has not even a comment."""

    file: str
    source: str
    entries: Sequence[CrontabEntry]
    empty: bool


Row = dict[str, Any]

COLUMNS: dict[str, Callable[[Row], object]] = {
    "line": lambda r: f"{r['file']}:{r['line']}",
    "result": lambda r: r["result"],
    "name": lambda r: r["name"],
    "schedule": lambda r: r["schedule"] and f"{r['schedule']} {r['timezone']}",
    "next": lambda r: r["next_fire_at"],
    "": lambda r: r["problem"] or "; ".join(r["notes"]),
}


def _read(file: Path, reading: Reading) -> _Crontab:
    from scheduler.domain.clock import SystemClock  # noqa: PLC0415 - not needed for help
    from scheduler.domain.crontab import ZoneUnknown, parse_crontab  # noqa: PLC0415

    shown = str(file)
    try:
        data = sys.stdin.buffer.read() if shown == "-" else file.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise failure(f"{shown}: {error.strerror}", exits.USAGE) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise failure(f"{shown}:{line}: not UTF-8; convert it first, as with iconv", exits.USAGE) from None
    source = reading.name_prefix + ("stdin" if shown == "-" else file.name)
    zone = reading.timezone or _local_zone()
    try:
        entries = parse_crontab(text, source=source, now=SystemClock().now(), system=reading.system, timezone=zone)
    except ZoneUnknown as error:
        what = f"{shown}:{error.line}: this machine does not say the name of its time zone, nor does the file"
        raise failure(f"{what}: give --timezone", exits.USAGE) from None
    if reading.queue is not None:
        entries = [_queued(entry, reading.queue) for entry in entries]
    return _Crontab(shown, source, entries, empty=not text.strip())


def _queued(entry: CrontabEntry, queue: str) -> CrontabEntry:
    import msgspec  # noqa: PLC0415 - not needed for help

    if entry.task is None:
        return entry
    return msgspec.structs.replace(entry, task=msgspec.structs.replace(entry.task, queue=queue))


def _local_zone() -> str | None:
    """Return the zone that cron on this machine goes by; None if it has no name, as a copy of its rules has not."""
    if zone := os.environ.get("TZ", "").removeprefix(":"):
        return zone
    if zone := os.path.realpath(_LOCALTIME).partition("/zoneinfo/")[2]:
        return zone
    if not _LOCALTIME.exists():
        return "UTC"
    try:
        return _TIMEZONE.read_text(errors="replace").strip() or None
    except OSError:
        return None


def _next_fire(task: TaskSpec) -> datetime | None:
    from scheduler.domain.clock import SystemClock  # noqa: PLC0415 - not needed for help
    from scheduler.domain.cron import parse_schedule  # noqa: PLC0415

    assert task.schedule is not None
    schedule = parse_schedule(task.schedule, task.timezone, hash_id=task.name, dst_gap=task.dst_gap)
    return schedule.next_after(SystemClock().now())


def _planned(crontab: _Crontab) -> Iterator[Row]:
    """Yield what a dry run says about each line."""
    for entry in crontab.entries:
        if entry.task is None:
            yield _row(crontab, entry, "refused")
        else:
            yield _row(crontab, entry, "would make", entry.task)


def _import(client: Client, crontabs: Sequence[_Crontab], *, prune: bool) -> list[Row]:
    from scheduler.cli.crontab_plan import TAG, plan_import, source_of  # noqa: PLC0415 - not needed for help
    from scheduler.cli.output import progress  # noqa: PLC0415

    made: dict[str | None, list[Task]] = {}
    for task in client.tasks(tag=TAG, page=1000):
        made.setdefault(source_of(task), []).append(task)
    rows: list[Row] = []
    with progress("importing", sum(len(crontab.entries) for crontab in crontabs)) as show:
        for crontab in crontabs:
            specs = [entry.task for entry in crontab.entries if entry.task is not None]
            steps, left = plan_import(specs, made.get(crontab.source, []))
            ids = _created_at_once(client, [step.spec for step in steps if step.action == "create"])
            following = iter(steps)
            taken: list[Row] = []
            for entry in crontab.entries:
                if entry.task is None:
                    taken.append(_row(crontab, entry, "refused"))
                else:
                    taken.append(_take(client, crontab, entry, next(following), ids))
                show(len(rows) + len(taken))
            rows += taken
            rows += _gone(client, crontab, left, doubtful=any(map(_may_have_a_task, taken)), prune=prune)
    return rows


def _created_at_once(client: Client, specs: Sequence[TaskSpec]) -> dict[str, UUID]:
    """Create tasks in one transaction; return ids by name, none if the server refuses any of them."""
    from scheduler.client import Conflict, InvalidRequest  # noqa: PLC0415 - not needed for help

    try:
        created = client.submit_many(specs)
    except (Conflict, InvalidRequest):
        return {}  # then one by one, to say which
    return {spec.name: item.id for spec, item in zip(specs, created, strict=True)}


def _take(client: Client, crontab: _Crontab, entry: CrontabEntry, step: Step, ids: dict[str, UUID]) -> Row:
    """Carry out one step; what the server refuses is the line's problem, and does not end the import."""
    from scheduler.client import Conflict, InvalidRequest, PreconditionFailed  # noqa: PLC0415 - not needed for help

    task_id = step.task.id if step.task is not None else ids.get(step.spec.name)
    try:
        if task_id is None:
            task_id = client.submit(step.spec).id
        elif step.task is not None and step.action != "keep":
            client.replace_task(task_id, step.spec, version=step.task.version)
    except (Conflict, InvalidRequest, PreconditionFailed) as error:
        return _row(crontab, entry, "refused", step.spec, problem=str(error))
    return _row(crontab, entry, _RESULTS[step.action], step.spec, task_id=task_id)


def _may_have_a_task(row: Row) -> bool:
    """Say whether a line may be one, mistyped by now, that an earlier import took over; one for @reboot never was."""
    return row["result"] == "refused" and not row["source"].lower().startswith("@reboot")


_RESULTS = {"create": "created", "update": "updated", "move": "moved", "keep": "unchanged"}
_KEPT = "its line may be one that could not be taken over"


def _gone(client: Client, crontab: _Crontab, left: Sequence[Task], *, doubtful: bool, prune: bool) -> Iterator[Row]:
    """Report tasks whose lines are gone, or delete them, unless that is `doubtful`.

    One that still runs stays until it has ended.
    """
    from scheduler.client import ApiError  # noqa: PLC0415 - not needed for help

    for task in left:
        row = _blank(crontab, int(task.labels["crontab"].rpartition(":")[2] or 0), "left over", task)
        row |= {"id": task.id, "next_fire_at": task.next_fire_at}
        if doubtful:
            row["notes"] = [_KEPT]
        elif prune:
            try:
                client.delete_task(task.id)
            except ApiError as error:
                row["problem"] = str(error)
            else:
                row |= {"result": "deleted", "next_fire_at": None}
        yield row


def _row(
    crontab: _Crontab,
    entry: CrontabEntry,
    result: str,
    task: TaskSpec | None = None,
    *,
    problem: str | None = None,
    task_id: object = None,
) -> Row:
    row = _blank(crontab, entry.line, result, task)
    known = {"id": task_id, "problem": problem or entry.problem, "notes": list(entry.notes), "source": entry.source}
    if task is not None and known["problem"] is None:
        known["next_fire_at"] = _next_fire(task)
    return row | known


def _blank(crontab: _Crontab, line: int, result: str, task: TaskSpec | None) -> Row:
    return {
        "file": crontab.file,
        "line": line,
        "result": result,
        "name": task.name if task else None,
        "schedule": task.schedule if task else None,
        "timezone": task.timezone if task else None,
        "next_fire_at": None,
        "id": None,
        "problem": None,
        "notes": [],
        "source": None,
    }
