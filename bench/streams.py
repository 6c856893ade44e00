"""Both ends of many open streams: the bare server that they are held against, and clients that only stay.

`python -m bench.streams serve` listens on a free port of 127.0.0.1, prints `ready http://127.0.0.1:PORT`, and answers
every request with a head and one event, and then with nothing until the client goes: what hypercorn needs for a stream,
and no more. `python -m bench.streams stay HOST PORT PATH COUNT` opens streams, prints `open COUNT` once each has
answered 200, and keeps them until its stdin ends.
"""

from __future__ import annotations

import selectors
import socket
import sys
from typing import Any

import anyio
from hypercorn.asyncio import serve
from hypercorn.config import Config

_AT_ONCE = 100
_PATIENCE = 60.0  # seconds


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer one ASGI event."""
    if scope["type"] != "http":
        return
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"retry: 1000\n\n", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


async def serve_streams() -> None:
    """Serve until the process is ended."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.backlog = 1024
    print(f"ready http://127.0.0.1:{port}", flush=True)
    await serve(application, config)


def stay(host: str, port: int, path: str, count: int) -> None:
    """Open `count` streams, a hundred at a time, and keep them. Raises OSError, or SystemExit for a wrong answer."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n".encode()
    streams: list[socket.socket] = []
    with selectors.DefaultSelector() as selector:
        while len(streams) < count:
            some = [
                socket.create_connection((host, port), _PATIENCE) for _ in range(min(_AT_ONCE, count - len(streams)))
            ]
            for stream in some:
                stream.sendall(request)
            for stream in some:
                _expect(stream.recv(4096))
                selector.register(stream, selectors.EVENT_READ)
            streams += some
        print(f"open {count}", flush=True)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return
                assert isinstance(key.fileobj, socket.socket)
                if not key.fileobj.recv(65536):
                    raise SystemExit("a stream ended")


def _expect(answer: bytes) -> None:
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"not a stream: {answer[:100]!r}")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        anyio.run(serve_streams)
    else:
        stay(sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
