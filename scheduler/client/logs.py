"""Following a run's output without I/O: what to ask for, what the events mean, and where to go on after a cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec

from scheduler.client.errors import BadAnswer
from scheduler.client.exchange import Fault, Id, Query, Reply, Request, build, error_of, path_of
from scheduler.client.retry import RetryPolicy
from scheduler.client.sse import Event, EventParser


class LogChunk(msgspec.Struct, frozen=True, kw_only=True):
    """Some output; bytes that are no UTF-8 come as U+FFFD. `position` counts bytes of the attempt's whole output."""

    stream: Literal["stdout", "stderr"]
    text: str
    position: int


class LogGap(msgspec.Struct, frozen=True, kw_only=True):
    """So many bytes are not kept any more: the output outgrew its limit."""

    bytes: int


class LogAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """Another attempt has begun; what follows is its output."""

    attempt: int


LogEvent: TypeAlias = LogChunk | LogGap | LogAttempt

_KINDS: dict[str, type[LogGap | LogAttempt]] = {"gap": LogGap, "attempt": LogAttempt}


class LogStream:
    """One run's output. Until `finished`: send `request()`, `feed` what arrives, ask `cut_off` what to do then."""

    def __init__(
        self, run_id: Id, *, attempt: int | None = None, stream: str | None = None, policy: RetryPolicy
    ) -> None:
        self._path = path_of("api", "runs", run_id, "logs")
        self._query: Query = {"follow": True, "attempt": attempt, "stream": stream}
        self._policy = policy
        self._parser = EventParser()
        self._seen: str | None = None
        self._tries = 0
        self.finished = False

    def request(self) -> Request:
        """Return the request for what has not been seen yet."""
        self._parser = EventParser()  # half an event of the last connection is sent again
        headers = {"accept": "text/event-stream"}
        if self._seen is not None:
            headers["last-event-id"] = self._seen
        return msgspec.structs.replace(build("GET", self._path, query=self._query), headers=headers)

    def feed(self, data: bytes) -> Iterator[LogEvent]:
        """Yield the output in what has arrived. Raises BadAnswer."""
        self._tries = 0
        for event in self._parser.feed(data):
            self._seen = event.id
            found = self._read(event)
            if found is not None:
                yield found

    def _read(self, event: Event) -> LogEvent | None:
        if event.event == "end":
            self.finished = True
            return None
        try:
            if event.event in ("stdout", "stderr"):
                part = msgspec.json.decode(event.data, type=_Part)
                return LogChunk(stream=event.event, text=part.text, position=part.position)  # type: ignore[arg-type]  # as tested
            kind = _KINDS.get(event.event)
            return None if kind is None else msgspec.json.decode(event.data, type=kind)
        except msgspec.DecodeError as error:
            raise BadAnswer(f"the server's stream cannot be read: {error}") from error

    def cut_off(self, why: Reply | Fault, noise: float) -> float:
        """Return how long to wait before asking again. Raises ApiError or Unreachable where that is no use."""
        self._tries += 1
        error = error_of(why)
        wait = self._policy.wait(error, tries=self._tries, repeatable=True, noise=noise)
        if wait is None:
            raise error
        return max(wait, self._parser.retry or 0.0)


class _Part(msgspec.Struct):
    text: str
    position: int
