"""What a command prints, bounded: the newest bytes win, whatever the command or the database do.

Bytes are numbered in the order in which they were read, both streams together; a piece is known by the number of its
first byte, and what is missing before it was dropped. A little is kept in memory; a command that prints faster than
the store takes it spills to an unnamed file, used as a ring, so that ten gigabytes cost no memory.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Sequence
from typing import Literal

import msgspec

from scheduler.domain.redaction import Redactor

Stream = Literal["stdout", "stderr"]

IN_MEMORY = 256 * 1024
"""Bytes of one attempt that wait in memory at most."""
PIECE = 64 * 1024
"""Adjoining bytes of one stream are joined up to this size: one row in the store."""
_PIECES_AT_LEAST = 8
"""What is stored is dropped by rows: of a small limit, each holds no more than this part."""
MAX_PIECES = 2048
"""A command may switch streams with every byte; pieces are bounded in number as well as in bytes."""
TAIL = 4096


class Piece(msgspec.Struct, gc=False):
    """Bytes of one stream; `position` numbers the first."""

    position: int
    stream: Stream
    data: bytes


class _Spilled(msgspec.Struct, gc=False):
    position: int
    stream: Stream
    size: int


class Capture:
    """The output of one attempt that is not stored yet, at most `limit` bytes of it."""

    __slots__ = (
        "_file",
        "_held",
        "_limit",
        "_memory",
        "_needles",
        "_piece",
        "_redactors",
        "_returned",
        "_spilled",
        "_spilled_bytes",
        "_tail",
        "directory",
        "total",
    )

    def __init__(self, limit: int, directory: str | None = None) -> None:
        self.total = 0
        self.directory = directory
        self._limit = limit
        self._piece = min(PIECE, limit // _PIECES_AT_LEAST or 1)
        self._memory: deque[Piece] = deque()
        self._held = 0
        self._spilled: deque[_Spilled] = deque()
        self._spilled_bytes = 0
        self._returned: list[Piece] = []
        self._file = -1
        self._tail = b""
        self._needles: Sequence[bytes] = ()
        self._redactors: dict[Stream, Redactor] = {}

    @property
    def waiting(self) -> bool:
        """Whether there is anything to store."""
        return self._held > 0 or self._spilled_bytes > 0 or bool(self._returned)

    @property
    def oldest_kept(self) -> int:
        """The number of the first byte that the limit allows to keep; pieces before it are to be deleted."""
        return max(0, self.total - self._limit)

    @property
    def needles(self) -> Sequence[bytes]:
        """What must not be kept of what the command says."""
        return self._needles

    def redact(self, needles: Sequence[bytes]) -> None:
        """Take these out of all that is fed from now on, in each stream by itself."""
        self._needles = needles
        if needles:
            self._redactors = {"stdout": Redactor(needles), "stderr": Redactor(needles)}

    def finish(self) -> None:
        """Take what was held back because a secret could have begun with it: nothing more comes."""
        for stream, redactor in self._redactors.items():
            if rest := redactor.rest():
                self._take_in(stream, rest)

    def feed(self, stream: Stream, data: bytes) -> None:
        """Take what was just read."""
        if self._redactors and not (data := self._redactors[stream].feed(data)):
            return
        self._take_in(stream, data)

    def _take_in(self, stream: Stream, data: bytes) -> None:
        self._tail = (self._tail + data)[-TAIL:] if len(data) < TAIL else data[-TAIL:]
        position = self.total
        self.total += len(data)
        if len(data) > self._limit:
            position += len(data) - self._limit
            data = data[len(data) - self._limit :] if self._limit else b""
        last = self._memory[-1] if self._memory else None
        if (
            last is not None
            and last.stream == stream
            and len(last.data) + len(data) <= self._piece
            and last.position + len(last.data) == position
        ):
            last.data += data
        else:
            for begin in range(0, len(data), self._piece):
                self._memory.append(Piece(position + begin, stream, data[begin : begin + self._piece]))
        self._held += len(data)
        if self._held > IN_MEMORY or len(self._memory) > MAX_PIECES // 2:
            self._spill()
        self._drop_old()

    def take(self, most: int) -> list[Piece]:
        """Remove and return the oldest pieces, about `most` bytes; the caller stores them or puts them back."""
        pieces = [piece for piece in self._returned if piece.position >= self.oldest_kept]
        self._returned = []
        size = sum(len(piece.data) for piece in pieces)
        while size < most and self._spilled:
            piece = self._unspill(self._spilled.popleft())
            size += len(piece.data)
            pieces.append(piece)
        while size < most and self._memory:
            piece = self._memory.popleft()
            self._held -= len(piece.data)
            size += len(piece.data)
            pieces.append(piece)
        return pieces

    def put_back(self, pieces: list[Piece]) -> None:
        """Keep pieces that could not be stored, unless newer ones have taken their place."""
        self._returned = pieces

    def tail(self) -> str | None:
        """Return the last 4 KiB as text, None if nothing was printed. PostgreSQL's text holds no NUL."""
        if not self._tail:
            return None
        data = self._tail
        if self.total > TAIL:  # do not begin within a character
            start = 0
            while start < 4 and data[start] & 0xC0 == 0x80:
                start += 1
            data = data[start:]
        return data.decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")

    def close(self) -> None:
        """Give the ring file back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _spill(self) -> None:
        """Move all that is in memory to the ring file; with no room on the disk, drop the oldest instead."""
        try:
            if self._file < 0:
                with tempfile.TemporaryFile(dir=self.directory) as file:
                    self._file = os.dup(file.fileno())
            for piece in self._memory:
                self._transfer(piece.position, piece.data)
        except OSError:
            while self._held > IN_MEMORY // 2:
                self._held -= len(self._memory.popleft().data)
            return
        for piece in self._memory:
            self._spilled.append(_Spilled(piece.position, piece.stream, len(piece.data)))
            self._spilled_bytes += len(piece.data)
        self._memory.clear()
        self._held = 0

    def _drop_old(self) -> None:
        oldest = self.oldest_kept
        while len(self._spilled) > MAX_PIECES:
            self._spilled_bytes -= self._spilled.popleft().size
        while self._spilled and (entry := self._spilled[0]).position < oldest:
            old = min(oldest - entry.position, entry.size)
            self._spilled_bytes -= old
            entry.position += old
            entry.size -= old
            if not entry.size:
                self._spilled.popleft()
        while self._memory and (piece := self._memory[0]).position < oldest:
            old = min(oldest - piece.position, len(piece.data))
            self._held -= old
            piece.position += old
            piece.data = piece.data[old:]
            if not piece.data:
                self._memory.popleft()

    def _unspill(self, entry: _Spilled) -> Piece:
        self._spilled_bytes -= entry.size
        start = entry.position % self._limit
        first = os.pread(self._file, min(entry.size, self._limit - start), start)
        rest = entry.size - len(first)
        return Piece(entry.position, entry.stream, first + (os.pread(self._file, rest, 0) if rest else b""))

    def _transfer(self, position: int, data: bytes) -> None:
        start = position % self._limit
        room = self._limit - start
        os.pwrite(self._file, data[:room], start)
        if len(data) > room:
            os.pwrite(self._file, data[room:], 0)
