"""The peers' own environments, made on demand from the versions in `locks/` and kept for the next time.

They are no part of this project: nothing here is imported from them, and they share no package with it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import anyio

from bench.peers.catalog import Peer

HERE = Path(__file__).parent
APPS = HERE / "apps"
_PATIENCE = 600.0


class NotInstalled(Exception):
    """A peer could not be installed; the message says what its installer said last."""


def cache() -> Path:
    """Return where environments are kept: `$DTS_BENCH_PEERS`, else below the user's cache."""
    given = os.environ.get("DTS_BENCH_PEERS")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dts-bench"


async def environment_of(peer: Peer) -> Path:
    """Return the peer's environment, made now if there is none for these versions yet. Raises NotInstalled."""
    source = HERE / "locks" / f"{peer.lock}.txt" if peer.kind == "python" else APPS / peer.lock / "package-lock.json"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    place = cache() / f"{peer.lock}-{digest}"
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        await (_python if peer.kind == "python" else _node)(place, source)
        (place / "complete").touch()
    if peer.kind == "node":
        shutil.copy(APPS / peer.lock / "app.mjs", place)
    return place


def version_of(peer: Peer) -> str:
    """Return what the peer is pinned to."""
    if peer.kind == "node":
        lines = (APPS / peer.lock / "package.json").read_text().splitlines()
        return next(line for line in lines if f'"{peer.lock}"' in line).split('"')[3]
    pins = [line.partition("==") for line in (HERE / "locks" / f"{peer.lock}.txt").read_text().splitlines()]
    return next(version.split()[0] for name, _, version in pins if name == peer.package)


async def _python(place: Path, lock: Path) -> None:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    python = place / "bin" / "python"
    if uv:
        await _run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(place)])
        await _run([uv, "pip", "install", "--quiet", "--require-hashes", "--python", str(python), "-r", str(lock)])
    else:
        await _run([sys.executable, "-m", "venv", str(place)])
        await _run([str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock)])


async def _node(place: Path, lock: Path) -> None:
    for name in ("package.json", lock.name):
        shutil.copy(lock.with_name(name), place)
    # Not `npm ci`: it refuses where a registry lacks an optional build for some other platform. The lock still holds.
    flags = ["--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    await _run(["npm", "install", *flags], cwd=place)


async def _run(command: list[str], *, cwd: Path | None = None) -> None:
    try:
        with anyio.fail_after(_PATIENCE):
            done = await anyio.run_process(command, check=False, cwd=cwd, stderr=subprocess.STDOUT)
    except FileNotFoundError as error:
        raise NotInstalled(f"{command[0]} is not installed") from error
    except TimeoutError as error:
        raise NotInstalled(f"{command[0]} took more than {_PATIENCE:.0f} s") from error
    if done.returncode:
        raise NotInstalled(f"{Path(command[0]).name}: {done.stdout.decode(errors='replace').strip()[-300:]}")
