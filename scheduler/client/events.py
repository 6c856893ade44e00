"""Operations on events, without I/O."""

from __future__ import annotations

from typing import Any

import msgspec

from scheduler.client.exchange import Id, Operation, ask, build, decoded, path_of
from scheduler.client.pages import Listing
from scheduler.wire.events import PublishedEvent


def publish_event(name: str, payload: Any = None) -> Operation[PublishedEvent]:
    """Say that something has happened: tasks whose schedule is `@event NAME` get a run. `payload` becomes JSON."""
    body = msgspec.json.encode(payload)
    return decoded((yield from ask(build("POST", path_of("api", "events", name), body=body))), PublishedEvent)


def events(*, name: str | None = None, page: int | None = None) -> Listing[PublishedEvent]:
    """List what was published, newest first, with the runs that began because of it."""
    return Listing("/api/events", PublishedEvent, {"name": name, "limit": page})


def event_of_run(run_id: Id) -> Operation[PublishedEvent]:
    """Return the event that a run began with. Raises NotFound if it began with none."""
    return decoded((yield from ask(build("GET", path_of("api", "runs", run_id, "event")))), PublishedEvent)
