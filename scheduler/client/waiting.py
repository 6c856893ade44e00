"""Waiting for runs to end, without I/O: asked often at first, then told by the server's stream of events.

Most runs that somebody waits for end within a second. After that, the stream says which of them have ended; they are
read again then, and all of them where it may have missed something. Where there is no stream, they are asked for once a
second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from uuid import UUID

import msgspec

from scheduler.client.errors import WaitTimeout
from scheduler.client.exchange import Heard, Id, Listen, Operation, build, pause
from scheduler.client.runs import run
from scheduler.client.sse import EventParser
from scheduler.domain.run import TERMINAL, Run

_SHORTEST_POLL = 0.02
_LONGEST_POLL = 1.0
_FEW = 20  # runs that may be asked for again and again
_SILENCE = 30.0  # seconds after which we look ourselves


def wait(run_id: Id, *, timeout: float | None = None) -> Operation[Run]:
    """Wait until a run has ended, and return it. Raises WaitTimeout after about `timeout` seconds."""
    (ended,) = yield from wait_many([run_id], timeout=timeout)
    return ended


def wait_many(
    run_ids: Iterable[Id], *, timeout: float | None = None, progress: Callable[[int], None] | None = None
) -> Operation[list[Run]]:
    """Wait until all of some runs have ended, and return them in order.

    Raises WaitTimeout after about `timeout` seconds. `progress` is told how many have ended so far.
    """
    now = yield from pause(0.0)
    give_up = None if timeout is None else now + timeout
    order: list[UUID] = []
    known: dict[UUID, Run] = {}
    for run_id in run_ids:
        found = yield from run(run_id)
        order.append(found.id)
        known[found.id] = found
    watch = _Watch()
    poll = _SHORTEST_POLL
    while waiting := {key for key, found in known.items() if found.state not in TERMINAL}:
        if progress is not None:
            progress(len(known) - len(waiting))
        if give_up is not None and now >= give_up:
            raise WaitTimeout(_still(waiting, known, timeout or 0.0))
        left = None if give_up is None else max(0.0, give_up - now)
        quick = poll < _LONGEST_POLL and len(waiting) <= _FEW
        if quick or not watch.works:
            now = yield from pause(poll if left is None else min(poll, left))
            poll = min(_LONGEST_POLL, poll * 1.5)
            again: Iterable[UUID] = waiting
        else:
            now, again = yield from watch.listen(waiting, _SILENCE if left is None else min(_SILENCE, left))
        for key in again:
            known[key] = yield from run(key)
    if progress is not None:
        progress(len(known))
    return [known[key] for key in order]


def _still(waiting: set[UUID], known: dict[UUID, Run], seconds: float) -> str:
    if len(waiting) == 1:
        (key,) = waiting
        return f"run {key} is still {known[key].state} after {seconds:g} s"
    return f"{len(waiting)} of {len(known)} runs have not ended after {seconds:g} s"


class _Told(msgspec.Struct):
    id: UUID
    state: str


class _Watch:
    """The stream of events, as far as it tells of runs that end. `works` is False once it has been refused."""

    def __init__(self) -> None:
        self.works = True
        self._place: str | None = None
        self._parser = EventParser()
        self._told: set[UUID] = set()
        self._unsure = True

    def listen(self, waiting: set[UUID], seconds: float) -> Operation[tuple[float, Iterable[UUID]]]:
        """Return the time and which runs to look at, once there is one, or after about so many seconds."""
        self._parser, self._told = EventParser(), set()
        known_place = self._place
        self._unsure = known_place is None

        def feed(data: bytes) -> bool:
            for event in self._parser.feed(data):
                if event.event == "run":
                    told = msgspec.json.decode(event.data, type=_Told)
                    if told.id in waiting and told.state in TERMINAL:
                        self._told.add(told.id)
                elif event.event == "gap":
                    self._unsure = True
            self._place = self._parser.last_id or self._place
            return bool(self._told) or (self._unsure and self._place is not None)

        request = build("GET", "/api/events/stream", query={"kind": "run"})
        headers = {"accept": "text/event-stream"} | ({} if known_place is None else {"last-event-id": known_place})
        heard = yield Listen(msgspec.structs.replace(request, headers=headers), feed, seconds)
        assert isinstance(heard, Heard)
        self.works = heard.opened
        return heard.now, waiting if self._unsure or not self._told else self._told
