"""Operations on runs, without I/O."""

from __future__ import annotations

from scheduler.client.errors import NotFound
from scheduler.client.exchange import Id, Operation, ask, build, decoded, path_of
from scheduler.client.pages import Listing, Page
from scheduler.domain.run import Attempt, Run
from scheduler.wire.runs import Cancelled, Explanation, FenceCheck


def run(run_id: Id) -> Operation[Run]:
    """Read one run."""
    return decoded((yield from ask(build("GET", path_of("api", "runs", run_id)))), Run)


def runs(
    *, task: Id | None = None, state: str | None = None, queue: str | None = None, page: int | None = None
) -> Listing[Run]:
    """List runs, newest first, `page` at a time: all of them, or those of one task."""
    path = "/api/runs" if task is None else path_of("api", "tasks", task, "runs")
    return Listing(path, Run, {"state": state, "queue": queue, "limit": page})


def attempts(run_id: Id) -> Operation[list[Attempt]]:
    """Read every attempt of a run, oldest first; the last one may still execute."""
    return decoded((yield from ask(build("GET", path_of("api", "runs", run_id, "attempts")))), Page[Attempt]).items


def explain(run_id: Id) -> Operation[Explanation]:
    """Ask why a run is not running: every live blocker."""
    return decoded((yield from ask(build("GET", path_of("api", "runs", run_id, "explain")))), Explanation)


def cancel_run(run_id: Id) -> Operation[Cancelled]:
    """Cancel a run; one that executes is asked to end. Raises Conflict if it has ended already."""
    return decoded((yield from ask(build("POST", path_of("api", "runs", run_id, "cancel")))), Cancelled)


def retry_run(run_id: Id) -> Operation[Run]:
    """Revive an ended run with fresh budgets; its attempts go on counting."""
    return decoded((yield from ask(build("POST", path_of("api", "runs", run_id, "retry")))), Run)


def logs(run_id: Id, *, attempt: int | None = None, stream: str | None = None) -> Operation[bytes]:
    """Read the output of a run's newest (or given) attempt as it stands: both streams as they came, or one of them."""
    query = {"follow": False, "attempt": attempt, "stream": stream}
    return (yield from ask(build("GET", path_of("api", "runs", run_id, "logs"), query=query))).body


def load_checkpoint(run_id: Id) -> Operation[bytes | None]:
    """Read the checkpoint of a run, None if it has none."""
    try:
        return (yield from ask(build("GET", path_of("api", "runs", run_id, "checkpoint")))).body
    except NotFound:
        yield from run(run_id)  # no such run is an error, no checkpoint is not
        return None


def fence_holds(run_id: Id, fence: int) -> Operation[bool]:
    """Ask whether an attempt may still act for its run; a command does so before a side effect."""
    reply = yield from ask(build("GET", path_of("api", "runs", run_id, "fence", fence)))
    return decoded(reply, FenceCheck).valid
