"""What a supervisor such as systemd is told of a role, and told to do about it."""

from __future__ import annotations

import configparser
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import httpx2
import pytest
from anyio import to_thread

from tests.support.ports import free_port
from tests.support.up import CHECKOUT
from tests.system.faults.support import reachable_directory

UNITS = sorted((CHECKOUT / "conf/systemd").glob("*.service"))


@pytest.fixture
def home() -> Iterator[Path]:
    with reachable_directory() as path:
        yield path


@pytest.fixture
def told(home: Path) -> Iterator[socket.socket]:
    """What hears of a role: where `started` lets it call."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(home / "notify"))
        listener.settimeout(20)
        yield listener


@contextmanager
def started(home: Path, database_url: str, redis_url: str, *words: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run `dts WORDS`, as a unit would."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scheduler", *map(str, words), "--database-url", database_url, "--redis-url", redis_url],
        env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(home / "notify")},
        cwd=CHECKOUT,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


async def test_a_worker_is_ready_once_it_is_registered(
    home: Path, told: socket.socket, database_url: str, redis_url: str
) -> None:
    with started(home, database_url, redis_url, "worker", "--state-dir", home / "state"):
        assert await to_thread.run_sync(told.recv, 100) == b"READY=1"
        connection = await asyncpg.connect(database_url)
        assert await connection.fetchval("SELECT count(*) FROM workers WHERE state = 'live'") == 1
        await connection.close()


def test_an_api_is_ready_once_it_answers_and_stopping_is_told_too(
    home: Path, told: socket.socket, database_url: str, redis_url: str
) -> None:
    port = free_port()
    with started(home, database_url, redis_url, "api", "--development", "--port", port) as process:
        assert told.recv(100) == b"READY=1"
        assert httpx2.get(f"http://127.0.0.1:{port}/health/ready", timeout=10).status_code == 200
        process.terminate()
        assert told.recv(100) == b"STOPPING=1"
        assert process.wait(20) == 0


def test_a_scheduler_is_ready_without_leading(
    home: Path, told: socket.socket, database_url: str, redis_url: str
) -> None:
    with started(home, database_url, redis_url, "scheduler"):
        assert told.recv(100) == b"READY=1"


def test_an_api_that_gets_no_port_is_never_ready(
    home: Path, told: socket.socket, database_url: str, redis_url: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started(home, database_url, redis_url, "api", "--development", "--port", port) as process:
            assert process.wait(20) != 0
    told.setblocking(False)
    with pytest.raises(BlockingIOError):
        told.recv(100)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_no_unit_gives_up_a_role_that_ends_again_and_again(path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    unit.read(path, encoding="utf-8")
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert (unit["Service"]["Type"], unit["Service"]["Restart"]) == ("notify", "always")
