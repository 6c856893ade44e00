"""Ports for servers that other processes will start."""

from __future__ import annotations

import itertools
import os
import socket
from typing import Final

_RANGE: Final = 1000
_numbers = itertools.cycle(range(_RANGE))


def free_port() -> int:
    """A port that nobody listens at, and that nobody else takes before it is used.

    The kernel gives away ports above 32767 by itself (`net.ipv4.ip_local_port_range`), also for connections. These are
    below, and each process of a test session has a thousand of its own.
    """
    first = 20_000 + _RANGE * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    for number in itertools.islice(_numbers, _RANGE):
        try:
            with socket.create_server(("127.0.0.1", first + number)):
                return first + number
        except OSError:  # somebody has it
            continue
    raise OSError("no port is free")
