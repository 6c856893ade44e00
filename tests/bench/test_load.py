from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bench.load import Generator, Job, LoadFailed


class _Handler(BaseHTTPRequestHandler):
    """Answers with what it was sent; closes each connection after a few requests, as servers do."""

    protocol_version = "HTTP/1.1"
    requests_left = 3

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append(body)  # type: ignore[attr-defined]
        self.requests_left -= 1
        self.send_response(500 if body == b'"fail"' else 201)
        self.send_header("Content-Length", str(len(body)))
        if self.requests_left == 0:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def server_bind(self) -> None:
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = "localhost", self.server_address[1]

    with Server(("127.0.0.1", 0), _Handler) as running:
        running.bodies = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _job(server: Any, bodies: list[bytes], **fields: Any) -> Job:
    return Job(host="127.0.0.1", port=server.server_port, path="/", bodies=bodies, **fields)


def test_every_request_is_sent_and_answered_once_over_connections_that_the_server_closes(server: Any) -> None:
    bodies = [json.dumps(n).encode() for n in range(40)]
    result = Generator(_job(server, bodies, count=40, connections=4, keep=True)).run()
    assert result.replies == bodies
    assert sorted(server.bodies) == sorted(bodies)
    assert all(latency > 0 for latency in result.latencies)


def test_bodies_are_sent_in_turn_when_there_are_more_requests_than_bodies(server: Any) -> None:
    Generator(_job(server, [b"1", b"2"], count=5)).run()
    assert server.bodies == [b"1", b"2", b"1", b"2", b"1"]


def test_at_a_rate_requests_leave_at_even_intervals(server: Any) -> None:
    result = Generator(_job(server, [b"1"], count=10, connections=4, rate=200)).run()
    assert result.seconds >= 9 / 200
    assert result.sent_at == sorted(result.sent_at)


def test_an_answer_that_refuses_is_an_error_with_what_it_said(server: Any) -> None:
    with pytest.raises(LoadFailed, match='status 500: "fail"'):
        Generator(_job(server, [b'"fail"'], count=1)).run()
