"""What every peer's application shares: the work itself, how it is reported, and how it is submitted.

It runs in the peer's own environment, so it needs the standard library alone. The work is a command; when it has ended,
a line `index moment` is appended to `$BENCH_DONE` (one write, O_APPEND), where `moment` is what the command printed if
it was asked to print its start, else the time of the write. An application calls `main` with how it sends one piece of
work and how it sends many: `app.py many COUNT` sends a pile in the way that the peer recommends for piles,
`app.py rate COUNT RATE` sends single ones at even intervals. Both print when they began, in seconds since the epoch;
`rate` prints every moment of sending. Pieces are numbered from `$BENCH_FIRST` on (0).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

REDIS_URL = os.environ.get("BENCH_REDIS_URL", "")
DATABASE_URL = os.environ.get("BENCH_DATABASE_URL", "")
COMMAND = os.environ.get("BENCH_COMMAND", "/bin/true").split()
PRINTS = os.environ.get("BENCH_PRINTS") == "1"
FIRST = int(os.environ.get("BENCH_FIRST", "0"))


def execute(index: int) -> None:
    """Run the command in the way of a synchronous task."""
    if PRINTS:
        _done(index, subprocess.run(COMMAND, check=True, stdout=subprocess.PIPE).stdout)
    else:
        subprocess.run(COMMAND, check=True)
        _done(index, b"")


async def execute_async(index: int) -> None:
    """Run the command in the way of an asynchronous task."""
    process = await asyncio.create_subprocess_exec(*COMMAND, stdout=subprocess.PIPE if PRINTS else None)
    printed, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}")
    _done(index, printed or b"")


def _done(index: int, printed: bytes) -> None:
    moment = printed.decode().strip() or repr(time.time())
    file = os.open(os.environ["BENCH_DONE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"{index} {moment}\n".encode())
    os.close(file)


def main(send: Callable[[int], object], send_many: Callable[[range], object]) -> None:
    """Submit what the command line asks for, synchronously."""
    kind, count = sys.argv[1], int(sys.argv[2])
    began = time.time()
    if kind == "many":
        send_many(range(FIRST, FIRST + count))
        print(began)
        return
    moments = []
    for index in range(count):
        time.sleep(max(0.0, began + index / float(sys.argv[3]) - time.time()))
        moments.append(time.time())
        send(FIRST + index)
    print(began, *moments)


async def main_async(send: Callable[[int], Awaitable[object]], send_many: Callable[[range], Awaitable[object]]) -> None:
    """Submit what the command line asks for, in an event loop."""
    kind, count = sys.argv[1], int(sys.argv[2])
    began = time.time()
    if kind == "many":
        await send_many(range(FIRST, FIRST + count))
        print(began)
        return
    moments = []
    for index in range(count):
        await asyncio.sleep(max(0.0, began + index / float(sys.argv[3]) - time.time()))
        moments.append(time.time())
        await send(FIRST + index)
    print(began, *moments)
