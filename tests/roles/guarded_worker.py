"""A worker without a database, for the guard: starts the command it is given, and renews while a file tells it to.

Arguments: a directory for notes, the command, and how many seconds each lease lasts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from uuid import uuid4

import anyio

from scheduler.domain.clock import SystemClock
from scheduler.domain.task import TaskSpec
from scheduler.worker.capture import Capture
from scheduler.worker.launch import Launch
from scheduler.worker.machine import Machine, watch_guard
from scheduler.worker.page import VARIABLE
from scheduler.worker.settings import WorkerSettings


async def main(notes: Path, command: str, lease: float) -> None:
    clock = SystemClock()
    machine = Machine.prepare(WorkerSettings(task_user="root" if os.geteuid() == 0 else ""), clock)
    with (notes / "workers").open("a") as file:
        file.write(f"{os.getpid()} {os.environ.get('DTS_REPLACES', '-')}\n")
    with watch_guard(os.environ.get(VARIABLE), machine):
        page = machine.page
        page.incarnation = uuid4().bytes
        (notes / "incarnation").write_text(page.incarnation.hex())
        page.hold_until(clock.boottime() + lease, ask_at=clock.boottime() + lease * 0.75)
        page.wake_guard()
        if command:
            launch = Launch(["/bin/sh", "-c", command], {"DTS_FENCE": "7"}, machine.launcher.default)
            await machine.executors["process"].start(launch, TaskSpec(name="t", command=command), 7, Capture(1000))
        while True:
            await anyio.sleep(lease / 5)
            if (notes / "renew").exists():
                page.hold_until(clock.boottime() + lease, ask_at=clock.boottime() + lease * 0.75)


anyio.run(main, Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
