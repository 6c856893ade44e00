"""The load generator: `python -m bench.load` reads a `Job` on stdin and writes a `Result` to stdout, both msgpack.

It shares the machine with what it measures, so it must cost little: a process of its own, plain sockets kept alive,
requests that are bytes before the clock starts, one selector and no event loop. What it did cost is in the result.
"""

from __future__ import annotations

import gc
import re
import resource
import selectors
import socket
import sys
import time
from collections.abc import Callable

import msgspec

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_PATIENCE = 60.0  # seconds without any answer after which the server is given up


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """`count` POSTs of `bodies` in turn.

    Without `rate`, each of `connections` sends its next request when its last one is answered. With it, requests leave
    at even intervals, `rate` a second, whatever the answers do, over at most `connections` at once.
    `keep` returns the answers' bodies.
    """

    host: str
    port: int
    path: str
    bodies: list[bytes]
    count: int
    connections: int = 1
    rate: float | None = None
    keep: bool = False
    expect: int = 201


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. Moments are seconds: `began` and `ended` monotonic, `sent_at` wall clock; lists are by request.

    `late` is how far the worst request left behind its time; `cpu` what the generator itself used meanwhile.
    """

    began: float
    ended: float
    began_at: float
    cpu: float
    late: float
    latencies: list[float]
    sent_at: list[float]
    replies: list[bytes]

    @property
    def seconds(self) -> float:
        """From the first byte sent to the last answer."""
        return self.ended - self.began


class LoadFailed(Exception):
    """The server refused a request, or went away."""


class _Connection:
    """One kept-alive connection with at most one request under way."""

    def __init__(self, job: Job, selector: selectors.BaseSelector) -> None:
        self._job = job
        self._selector = selector
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self.index = -1  # of the request under way
        self.connect()

    def connect(self) -> None:
        self._socket = socket.create_connection((self._job.host, self._job.port), timeout=_PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(self._socket, selectors.EVENT_READ, self)

    def close(self) -> None:
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    @property
    def open(self) -> bool:
        return self._socket is not None

    def send(self, index: int, request: bytes) -> None:
        assert self._socket is not None
        self.index = index
        self._socket.sendall(request)

    def receive(self) -> bytes | None:
        """Return the answer's body once complete. A server may close an idle connection: then it is not `open`."""
        assert self._socket is not None
        data = self._socket.recv(262144)
        if not data:
            if self.index >= 0:
                raise LoadFailed("the server closed a connection with a request under way")
            self.close()
            return None
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        head = bytes(self._buffer[:head_end])
        length = _LENGTH.search(head)
        if length is None:
            raise LoadFailed("an answer without Content-Length")
        end = head_end + 4 + int(length[1])
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[head_end + 4 : end])
        del self._buffer[:end]
        status = int(head[9:12])
        if status != self._job.expect:
            raise LoadFailed(f"status {status}: {body[:500].decode(errors='replace')}")
        self.index = -1
        if _CLOSE.search(head):
            self.close()
        return body


class Generator:
    """Does one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._requests = [_request(job, body) for body in job.bodies]
        self._selector = selectors.DefaultSelector()
        self._connections = [_Connection(job, self._selector) for _ in range(job.connections)]
        self._sent = 0
        self._done = 0
        self._sent_at = [0.0] * job.count
        self._left_at = [0.0] * job.count
        self._latencies = [0.0] * job.count
        self._replies = [b""] * job.count
        self._late = 0.0

    def run(self) -> Result:
        """Send everything, wait for every answer. Raises LoadFailed, OSError."""
        used = time.process_time()
        began, began_at = time.monotonic(), time.time()
        try:
            if self._job.rate is None:
                self._closed()
            else:
                self._open(began, self._job.rate)
            ended = time.monotonic()
        finally:
            for connection in self._connections:
                connection.close()
            self._selector.close()
        return Result(
            began=began,
            ended=ended,
            began_at=began_at,
            cpu=time.process_time() - used,
            late=self._late,
            latencies=self._latencies,
            sent_at=self._sent_at,
            replies=self._replies if self._job.keep else [],
        )

    def _closed(self) -> None:
        for connection in self._connections[: self._job.count]:
            self._send(connection)
        while self._done < self._job.count:
            self._answers(_PATIENCE, self._send_next)

    def _open(self, began: float, rate: float) -> None:
        idle = list(self._connections)
        while self._done < self._job.count:
            now = time.monotonic()
            while self._sent < self._job.count and idle and (due := began + self._sent / rate) <= now:
                self._late = max(self._late, now - due)
                self._send(idle.pop())
            if self._sent == self._job.count:
                wait = _PATIENCE
            else:
                wait = max(0.0, began + self._sent / rate - now) if idle else _PATIENCE
            self._answers(wait, idle.append)

    def _answers(self, wait: float, then: Callable[[_Connection], None]) -> None:
        ready = self._selector.select(wait)
        if not ready and wait == _PATIENCE:
            raise LoadFailed(f"no answer for {_PATIENCE:.0f} s")
        for key, _ in ready:
            connection: _Connection = key.data
            index = connection.index
            body = connection.receive()
            if body is not None:
                self._latencies[index] = time.monotonic() - self._left_at[index]
                if self._job.keep:
                    self._replies[index] = body
                self._done += 1
                then(connection)

    def _send_next(self, connection: _Connection) -> None:
        if self._sent < self._job.count:
            self._send(connection)

    def _send(self, connection: _Connection) -> None:
        if not connection.open:  # closed while idle: clients keep their connections, so this is not the server's time
            connection.connect()
        index = self._sent
        self._sent += 1
        self._sent_at[index] = time.time()
        self._left_at[index] = time.monotonic()
        connection.send(index, self._requests[index % len(self._requests)])


def _request(job: Job, body: bytes) -> bytes:
    head = f"POST {job.path} HTTP/1.1\r\nHost: {job.host}:{job.port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def main() -> None:
    """Do the job on stdin."""
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Job)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    generator = Generator(job)
    gc.disable()
    try:
        result = generator.run()
    except (LoadFailed, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    sys.stdout.buffer.write(msgspec.msgpack.encode(result))


if __name__ == "__main__":
    main()
