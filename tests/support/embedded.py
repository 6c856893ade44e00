"""The embedded servers alone, as `dts up` runs them: in this process, or as `python -m tests.support.embedded DIR`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio

from scheduler.embedded.datadir import DataDir
from scheduler.embedded.plan import Plan
from scheduler.embedded.servers import run_servers
from scheduler.process import run_process


@asynccontextmanager
async def embedded(path: Path) -> AsyncIterator[Plan]:
    """Run both servers on `path` until left."""
    with DataDir(path) as data:
        plan = Plan(data, task_user="nobody", database_url="", redis_url="")
        async with anyio.create_task_group() as group:
            await group.start(run_servers, plan, _silent)
            yield plan
            group.cancel_scope.cancel()


@contextmanager
def embedded_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run them in another process, which has printed `ready` when this returns. It is killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.embedded", str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def _silent(_text: str) -> None:
    return


async def _main(stop: anyio.Event) -> None:
    async with embedded(Path(sys.argv[1])):
        print("ready", flush=True)  # noqa: T201 - the parent reads it
        await stop.wait()


if __name__ == "__main__":
    sys.exit(run_process(_main))
