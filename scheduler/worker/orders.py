"""What a worker and its spawners say to each other: orders one way, events the other, in frames over a socket.

    order → Started → (Living, with its pipes) → Ended
          → Failed | Refused

A frame is four bytes of length and a list of tuples as `marshal` writes them: both ends are the same interpreter.
Descriptors travel beside the frame that speaks of them, in its order.

Imports the standard library only, and little of it, since every worker has spawners: msgspec is a fourth of one.
"""

from __future__ import annotations

import array
import marshal
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

MOST_DESCRIPTORS = 200
"""Descriptors that one frame carries; Linux allows 253."""

_LENGTH = struct.Struct("=I")
_ROOM = socket.CMSG_SPACE(4 * 253)
_CLOSED_BY_EXECUTING = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_READ = 256 * 1024

Message = TypeVar("Message")


class Order(NamedTuple):
    """A command to start, in the bytes that the kernel is given. `variables` are `NAME=value`.

    `search_path` is where `words[0]` is looked for if it has no slash. `directory` and `umask` are None for the
    worker's own; `stdin` None reads nothing. `limits` are pairs of `RLIMIT_…` and the most of it. `cell` is how many
    descriptors come with the order: whoever writes `0` to each of them is in the command's cell.
    """

    id: int
    words: list[bytes]
    variables: list[bytes]
    search_path: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    directory: bytes | None = None
    umask: int | None = None
    stdin: bytes | None = None
    limits: Sequence[tuple[int, int]] = ()
    cell: int = 0


class Started(NamedTuple):
    """The command executes; it leads a session and a group of its own."""

    id: int
    pid: int


class Failed(NamedTuple):
    """It could not be started. `what` is a short cause for machines, `text` says it to people."""

    id: int
    what: str
    text: str


class Refused(NamedTuple):
    """It was not started: the lease had run out."""

    id: int


class Living(NamedTuple):
    """It has lived for a while; the reading ends of its stdout and stderr come with this."""

    id: int


class Ended(NamedTuple):
    """Its main process has ended, by itself (`code`) or by a signal, and its group is killed.

    For a command that was not `Living`: what it printed. Where somebody still holds a stream, that is None, and its
    reading end comes with this, stdout first.
    """

    id: int
    code: int | None
    signal: int | None
    stdout: bytes | None = b""
    stderr: bytes | None = b""


Event = Started | Failed | Refused | Living | Ended
_KINDS: tuple[type[Event], ...] = (Started, Failed, Refused, Living, Ended)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}


def order_of(fields: tuple[object, ...]) -> Order:
    """Return an order that has come."""
    return Order._make(fields)


def as_sent(event: Event) -> tuple[object, ...]:
    """Return an event as it is sent."""
    return _NUMBERS[type(event)], *event


def event_of(fields: tuple[int, *tuple[object, ...]]) -> Event:
    """Return an event that has come."""
    return _KINDS[fields[0]]._make(fields[1:])


class DescriptorsLost(Exception):
    """Descriptors did not arrive, since this process may open no more files; what they belong to is not known."""


class Frames(Generic[Message]):
    """Frames of one socket's messages: those that come in put together, those that go out taken apart."""

    def __init__(self, connection: socket.socket, incoming: Callable[..., Message]) -> None:
        self._socket = connection
        self._incoming = incoming
        self._received = bytearray()
        self.descriptors: deque[int] = deque()
        """Descriptors that have come; whoever handles a message takes what it speaks of from the left."""

    def receive(self) -> list[Message] | None:
        """Return the messages that are whole by now; None at the end of the connection. Raises DescriptorsLost."""
        data, ancillary, flags, _ = self._socket.recvmsg(_READ, _ROOM, _CLOSED_BY_EXECUTING)
        if not data:
            return None
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self.descriptors.extend(numbers)
        if flags & socket.MSG_CTRUNC:
            raise DescriptorsLost("no more files may be open")
        received = self._received
        received += data
        messages: list[Message] = []
        begin = 0
        while len(received) - begin >= _LENGTH.size:
            end = begin + _LENGTH.size + _LENGTH.unpack_from(received, begin)[0]
            if end > len(received):
                break
            messages += map(self._incoming, marshal.loads(memoryview(received)[begin + _LENGTH.size : end]))  # noqa: S302
            begin = end
        if begin:
            del received[:begin]
        return messages

    def encode(self, messages: Iterable[tuple[object, ...]]) -> bytes:
        """Return the messages as one frame."""
        body = marshal.dumps(list(messages))
        return _LENGTH.pack(len(body)) + body

    def send(self, data: bytes | memoryview, descriptors: Sequence[int] = ()) -> int:
        """Send what the socket takes now, the descriptors with its first byte; return how many bytes that was."""
        if not descriptors:
            return self._socket.send(data)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        return self._socket.sendmsg([data], [rights])
