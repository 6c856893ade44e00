"""What this machine is like, for `dts doctor`, as a role that is started here now would find it."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from scheduler.cli import contexts
from scheduler.config import Config
from scheduler.domain.checkup import HostFacts

_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^]]*])?[^;]*?>=\s*([\d.]+)")


def examine(config: Config) -> HostFacts:
    """Look around; changes nothing."""
    return HostFacts(
        python=sys.version_info[:3],
        platform=sys.platform,
        outdated=list(_outdated()),
        open_files=_open_files(),
        containment=_containment(),
        unwritable=[str(p) for p in _directories(config) if not os.access(p, os.W_OK | os.X_OK)],
        readable_keys=list(_readable_keys()),
    )


def _outdated() -> Iterator[str]:
    try:
        requirements = metadata.requires("distributed-task-scheduler") or []
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is None or "extra ==" in requirement:
            continue
        try:
            there = metadata.version(match[1])
        except metadata.PackageNotFoundError:
            yield f"{match[1]} (not installed)"
            continue
        if _numbers(there) < _numbers(match[2]):
            yield f"{match[1]} {there} (needs {match[2]})"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _open_files() -> int:
    import resource  # noqa: PLC0415 - not on every system

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _containment() -> str:
    if sys.platform != "linux":
        return "process group"
    from scheduler.worker.hierarchies import own_hierarchies  # noqa: PLC0415 - Linux only

    writable = [h for h in own_hierarchies() if os.access(h.directory, os.W_OK)]
    if not writable:
        return "session: no cgroup of ours can be written here"
    controllers = sorted({name for h in writable for name in h.controllers})
    return f"cgroup v{min(h.version for h in writable)} ({', '.join(controllers) or 'no controllers'})"


def _directories(config: Config) -> Iterator[Path]:
    yield Path(tempfile.gettempdir())
    for given in (config.worker.state_dir, config.up.data_dir):
        if given:
            path = Path(given)
            while not path.exists() and path != path.parent:  # it will be made: look at where
                path = path.parent
            yield path


def _readable_keys() -> Iterator[str]:
    keys = contexts.home(os.environ) / "keys"
    if keys.is_dir():
        yield from (str(file) for file in sorted(keys.iterdir()) if file.stat().st_mode & 0o077)
