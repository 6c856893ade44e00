"""Python processes of the bench's own: the load generator, the bare handler, the system under test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio
import msgspec

from bench.load import Job, LoadFailed, Result

ROOT = Path(__file__).parent.parent


def environment() -> dict[str, str]:
    """Return an environment in which `bench` and `scheduler` are found, and nobody's settings are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DTS_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))}


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a Python module as a program."""
    return [sys.executable, "-m", name, *arguments]


async def send(job: Job) -> Result:
    """Have a load generator do a job. Raises LoadFailed with what it said."""
    done = await anyio.run_process(
        module("bench.load"),
        input=msgspec.msgpack.encode(job),
        stderr=subprocess.PIPE,
        env=environment(),
        check=False,
    )
    if done.returncode != 0:
        raise LoadFailed(done.stderr.decode(errors="replace").strip())
    return msgspec.msgpack.decode(done.stdout, type=Result)
