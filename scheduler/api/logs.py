"""What runs print: as text, or live as server-sent events that resume where a client left off.

An event's id is `<attempt>:<offset>`, the offset behind its last byte; `Last-Event-ID` (or `?attempt=&offset=`)
continues there. `stdout` and `stderr` carry `{"text", "position"}`, `gap` says that output was dropped, `attempt` that
another one has begun, `end` comes with the run's final state; a stream without one ended because the server stops: come
back.
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator

import anyio
import msgspec
from starlette.responses import Response, StreamingResponse

from scheduler.api.checkpoints import demand_current
from scheduler.api.context import Context, found
from scheduler.api.problems import malformed
from scheduler.api.requests import Request
from scheduler.api.routing import Query, Route
from scheduler.domain.errors import FieldError, InvalidInput
from scheduler.domain.run import TERMINAL, Run
from scheduler.service import Wake
from scheduler.store.database import StoreUnavailable
from scheduler.store.runs import OutputChunk

_CHUNKS = 64
_MAX_OFFSET = (1 << 63) - 1
_encode = msgspec.json.Encoder().encode


async def read_logs(api: Context, request: Request) -> Response:
    """Return a run's output as text, or follow it as server-sent events (`?follow=true`, or by Accept)."""
    request.allow_query("follow", "attempt", "offset", "stream")
    run_id = request.uuid("run")
    await demand_current(api, request)
    run = found(await api.runs.get(request.namespace, run_id), "run", run_id)
    stream = request.query.get("stream")
    if stream not in (None, "stdout", "stderr"):
        raise InvalidInput([FieldError("?stream", "must be stdout or stderr")])
    attempt, offset = _where(request)
    accept = request.headers.get(b"accept", b"").decode("latin-1")
    follow = request.convert("follow", bool)
    if follow is None:
        follow = "text/event-stream" in accept
    headers = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
    if follow:
        feed = _Feed(api, request, run, attempt if attempt is not None else max(run.attempt, 1), offset, stream)
        return StreamingResponse(feed.events(), media_type="text/event-stream", headers=headers)
    text = _text(api, run, attempt if attempt is not None else run.attempt, offset, stream)
    return StreamingResponse(text, media_type="text/plain; charset=utf-8", headers=headers)


def _where(request: Request) -> tuple[int | None, int]:
    """Return (attempt, offset) to begin at: what the client has seen already, or what it asks for."""
    seen = request.headers.get(b"last-event-id")
    if seen:
        attempt_text, separator, offset_text = seen.partition(b":")
        if not (separator and attempt_text.isdigit() and offset_text.isdigit()):
            raise malformed("Last-Event-ID is none of ours")
        attempt, offset = int(attempt_text[:20]), int(offset_text[:20])
    else:
        given = request.convert("attempt", int)
        offset = request.convert("offset", int) or 0
        if given is None:
            return None, _bounded("?offset", offset)
        attempt = given
    return _bounded("?attempt", attempt, 2**31 - 1), _bounded("?offset", offset)


def _bounded(name: str, value: int, most: int = _MAX_OFFSET) -> int:
    if not 0 <= value <= most:
        raise InvalidInput([FieldError(name, f"must be from 0 to {most}")])
    return value


async def _text(api: Context, run: Run, attempt: int, offset: int, stream: str | None) -> AsyncIterator[bytes]:
    while chunks := await api.runs.output(run.id, attempt, offset, _CHUNKS):
        moved = False
        for chunk in chunks:
            if chunk.end <= offset:
                continue
            moved = True
            if chunk.position > offset:
                yield b"\n[... %d bytes were dropped here ...]\n" % (chunk.position - offset)
            if stream is None or stream == chunk.stream:
                yield chunk.data[max(0, offset - chunk.position) :]
            offset = chunk.end
        if not moved:
            return


class _Feed:
    """One client that follows one run."""

    def __init__(self, api: Context, request: Request, run: Run, attempt: int, offset: int, stream: str | None) -> None:
        self._api = api
        self._namespace = request.namespace
        self._principal = request.principal
        self._ended = False
        self._run_id = run.id
        self._attempt = attempt
        self._offset = offset
        self._stream = stream
        self._wake = Wake()
        self._decoders = _decoders()

    async def events(self) -> AsyncIterator[bytes]:
        """Yield events until the run has ended, the server stops, or the client's credentials hold no longer."""
        follower = self._api.credentials.follow(self._principal, self._end)
        listener = self._api.broker.listen(f"logs:{self._run_id}", lambda _: self._wake.set(), self._wake.set)
        try:
            yield b"retry: 1000\n\n"
            silent = 0.0
            while not self._ended:
                moved = False
                try:
                    # The state is read before the output: what a run printed is stored before its end is.
                    run = await self._api.runs.get(self._namespace, self._run_id)
                    async for event in self._advance():
                        moved = True
                        yield event
                except StoreUnavailable:
                    return  # the client comes back, and goes on where it was
                if run is None or (run.state in TERMINAL and self._attempt >= run.attempt):
                    yield self._event("end", {"state": run.state, "reason": run.reason} if run else {"state": None})
                    return
                if self._attempt < run.attempt:
                    self._attempt, self._offset, self._decoders = self._attempt + 1, 0, _decoders()
                    yield self._event("attempt", {"attempt": self._attempt})
                    continue
                if self._api.stopping.is_set():
                    return
                silent = 0.0 if moved else silent + self._api.settings.log_poll
                if silent >= self._api.settings.sse_keepalive:
                    silent = 0.0
                    yield b": still here\n\n"
                await self._pause()
        finally:
            self._api.credentials.unfollow(follower)
            self._api.broker.unlisten(listener)

    def _end(self) -> None:
        self._ended = True
        self._wake.set()

    async def _pause(self) -> None:
        """Wait for news, for the next poll, or for the server to stop."""
        with anyio.move_on_after(self._api.settings.log_poll):
            async with anyio.create_task_group() as group:

                async def stop() -> None:
                    await self._api.stopping.wait()
                    group.cancel_scope.cancel()

                group.start_soon(stop, name="logs: stop")
                await self._wake.wait()
                group.cancel_scope.cancel()

    async def _advance(self) -> AsyncIterator[bytes]:
        while chunks := await self._api.runs.output(self._run_id, self._attempt, self._offset, _CHUNKS):
            start = self._offset
            for chunk in chunks:
                if chunk.end > self._offset:
                    for event in self._chunk_events(chunk):
                        yield event
            if self._offset == start:
                return

    def _chunk_events(self, chunk: OutputChunk) -> list[bytes]:
        events = []
        if chunk.position > self._offset:
            dropped = chunk.position - self._offset
            self._offset = chunk.position
            events.append(self._event("gap", {"bytes": dropped, "position": chunk.position}))
        position = self._offset
        text = self._decoders[chunk.stream].decode(chunk.data[position - chunk.position :])
        self._offset = chunk.end
        if self._stream is None or self._stream == chunk.stream:
            events.append(self._event(chunk.stream, {"text": text, "position": position}))
        return events

    def _event(self, kind: str, data: dict[str, object]) -> bytes:
        return b"id: %d:%d\nevent: %s\ndata: %s\n\n" % (self._attempt, self._offset, kind.encode(), _encode(data))


def _decoders() -> dict[str, codecs.IncrementalDecoder]:
    """Characters may be cut by the end of a chunk: each stream remembers the first part."""
    make = codecs.getincrementaldecoder("utf-8")
    return {"stdout": make("replace"), "stderr": make("replace")}


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/api/runs/{id}/logs",
        permission="log:read",
        run_token=True,
        handler=read_logs,
        summary="Read or follow a run's output",
        tag="runs",
        query=(
            Query("follow", bool, "Server-sent events until the run has ended (also by Accept: text/event-stream)."),
            Query("attempt", int, "Of which attempt (default: the newest)."),
            Query("offset", int, "From which byte of the attempt's output on."),
            Query("stream", str, "Only `stdout` or only `stderr`."),
        ),
        responses={200: ("text/plain", "text/event-stream")},
        errors=(404, 422),
    ),
)
