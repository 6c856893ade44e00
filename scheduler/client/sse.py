"""Server-sent events, read as the HTML standard says: bytes in, whole events out."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

import msgspec


class Event(msgspec.Struct, frozen=True):
    """One event; `id` is the last id seen so far, for `Last-Event-ID`."""

    event: str
    data: str
    id: str | None


class EventParser:
    """Feed it what arrives, cut anywhere. `retry` is the server's wish for the pause before a reconnect, in seconds."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._event = ""
        self._data: list[str] = []
        self.last_id: str | None = None
        self.retry: float | None = None

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that this chunk completes."""
        self._text += self._decoder.decode(chunk)
        # A CR at the very end may be half of a CR LF: it stays until the next chunk.
        held = self._text.endswith("\r")
        text = self._text[:-1] if held else self._text
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._text = lines.pop() + ("\r" if held else "")
        for line in lines:
            event = self._line(line)
            if event is not None:
                yield event

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self.last_id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry = int(value) / 1000
        return None

    def _dispatch(self) -> Event | None:
        event, data = self._event, self._data
        self._event, self._data = "", []
        return Event(event or "message", "\n".join(data), self.last_id) if data else None
