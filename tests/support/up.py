"""`dts up` as a user starts it: a process of its own, watched from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil

from tests.support.submitting import Submitting

CHECKOUT = Path(__file__).parents[2]
PROGRAM = ("-m", "scheduler")


class Up(Submitting):
    """A running `dts up`; `url` is valid once it is ready."""

    def __init__(self, data: Path, *flags: str, port: int = 0, program: Sequence[str] = PROGRAM) -> None:
        self.data = data
        self.url = ""
        self.log: list[str] = []
        started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, *program, "up", "--data-dir", str(data), "--port", str(port), *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            env={**os.environ, "DTS_LOG__FORMAT": "json"},
            start_new_session=True,
        )
        assert self.process.stderr is not None
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self.log.extend, args=(self.process.stderr,))
        self._reader.start()
        line = self.process.stdout.readline()
        self.seconds = time.monotonic() - started
        if line.startswith("ready "):
            self.url = line.split()[1]

    def family(self) -> list[psutil.Process]:
        """Return every process of the tree, the supervisor first."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def role(self, name: str) -> psutil.Process:
        """Return the process that calls itself `name`."""
        return next(process for process in self.family() if process.name() == name)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(60)
        self._reader.join()
        return code

    def request(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        return httpx2.request(method, self.url + path, timeout=10, **kwargs)

    def task(self, identifier: str) -> dict[str, Any]:
        answer = self.request("GET", f"/api/tasks/{identifier}")
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextmanager
def dts_up(data: Path, *flags: str, port: int = 0, program: Sequence[str] = PROGRAM) -> Iterator[Up]:
    """Run `dts up`; whatever is left of it in the end is killed. `program` is what Python runs."""
    up = Up(data, *flags, port=port, program=program)
    try:
        yield up
    finally:
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = up.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        up.wait()
        assert up.process.stdout is not None
        up.process.stdout.close()
        assert up.process.stderr is not None
        up.process.stderr.close()
