"""`dts plan`: when things will happen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import REMOTE, Remote, failure

if TYPE_CHECKING:
    from scheduler.domain.schedule import Schedule

app = App(name="plan")


@app.default
def plan(
    schedule: Annotated[str | None, Parameter(help='A schedule, such as "0 3 * * 1-5" or "@every 90s".')] = None,
    /,
    *,
    timezone: Annotated[str, Parameter(help="IANA zone that the schedule is in.")] = "UTC",
    dst_gap: Annotated[
        Literal["skip", "shift"], Parameter(help="What becomes of local times that do not exist.")
    ] = "skip",
    name: Annotated[str, Parameter(help="Name of the task: where H falls depends on it.")] = "",
    count: Annotated[int, Parameter(name=("--count", "-n"), help="How many fires.")] = 10,
    remote: Remote = REMOTE,
) -> int:
    """Show the next fires: of a schedule, without any server, or of every task that is due next.

    `dts task plan TASK` shows the fires of one task.

    For example:

    - `dts plan "30 2 * * *" --timezone Europe/Berlin`
    - `dts plan -n 20`
    """
    if schedule is None:
        return _upcoming(count, remote)
    from scheduler.domain.clock import SystemClock  # noqa: PLC0415 - not needed for help
    from scheduler.domain.cron import parse_schedule  # noqa: PLC0415

    now = SystemClock().now()
    try:
        parsed = parse_schedule(schedule, timezone, hash_id=name, dst_gap=dst_gap, anchor=now)
    except ValueError as error:
        raise failure(str(error), exits.USAGE) from None
    return _show_fires(parsed, now, count, remote)


def _show_fires(schedule: Schedule, after: datetime, count: int, remote: Remote) -> int:
    fires: list[dict[str, Any]] = []
    while len(fires) < count:
        following = schedule.next_after(after)
        if following is None:
            break
        note = "; ".join(schedule.notes(following)) or None
        fires.append({"at": following, "local": schedule.local(following).isoformat(), "note": note})
        after = following
    columns: dict[str, Callable[[dict[str, Any]], object]] = {
        "local": lambda f: f["local"],
        "UTC": lambda f: f["at"].strftime("%Y-%m-%d %H:%M:%S"),
        "note": lambda f: f["note"],
    }
    remote.output().rows(fires, columns, empty="it will not fire")
    return exits.OK


def _upcoming(count: int, remote: Remote) -> int:
    """Show the tasks that fire next, soonest first."""
    import heapq  # noqa: PLC0415 - not needed for help

    with remote.connect() as client:
        due = (task for task in client.tasks(status="scheduled", page=1000) if task.next_fire_at is not None)
        soonest = heapq.nsmallest(count, due, key=lambda task: (task.next_fire_at, task.name))
        columns: dict[str, Callable[[Any], object]] = {
            "next fire": lambda t: t.next_fire_at,
            "name": lambda t: t.name,
            "schedule": lambda t: t.schedule,
            "zone": lambda t: t.timezone,
            "task": lambda t: t.id,
        }
        remote.output().rows(soonest, columns, empty="nothing is scheduled")
    return exits.OK
