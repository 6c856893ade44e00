"""The bare handler that single submits are held against: hypercorn, starlette and msgspec, and no work.

`python -m bench.bare --reply BYTES` listens on a free port of 127.0.0.1, prints `ready http://127.0.0.1:PORT`, decodes
every POSTed body into the same type as the real server does, and answers 201 with a body of the given size. Whatever a
server built on these three does for a request comes on top of this.
"""

from __future__ import annotations

import socket
import sys

import anyio
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scheduler.domain.task import decode_spec


def application(reply_bytes: int) -> Starlette:
    """Return the application; its answer is `reply_bytes` long."""
    answer = b'{"id":"' + b"0" * (reply_bytes - 9) + b'"}'

    async def create(request: Request) -> Response:
        spec = decode_spec(await request.body())
        return Response(answer, 201, {"location": f"/api/tasks/{spec.name}"}, "application/json")

    return Starlette(routes=[Route("/api/tasks", create, methods=["POST"])])


async def run(reply_bytes: int) -> None:
    """Serve until the process is ended."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    print(f"ready http://127.0.0.1:{port}", flush=True)  # who connects already waits in the backlog
    await serve(application(reply_bytes), config)  # type: ignore[arg-type]  # hypercorn has its own idea of ASGI


if __name__ == "__main__":
    anyio.run(run, int(sys.argv[sys.argv.index("--reply") + 1]))
