"""Debian's cron and systemd's timers, each in a namespace of its own: nothing of the machine's own is touched or run.

Both need root for that. cron is the Debian package of the version below, unpacked and not installed; systemd is the
machine's own, as a manager of units for a user, with nothing to manage but the timers that it is given.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread

from bench.peers.environments import NotInstalled, cache
from bench.peers.running import PeerFailed

CRON_VERSION = "3.0pl1-162"
_SYSTEMD = Path("/lib/systemd/systemd")
_CGROUPS = Path("/sys/fs/cgroup")
_SETTLE = 1.0
_BURIAL = 5.0

_CRON = """
set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/spool
if [ -d /etc/cron.d ]; then mount -t tmpfs tmpfs /etc/cron.d; fi
if [ -e /etc/crontab ]; then mount --bind /dev/null /etc/crontab; fi
mkdir -p /var/spool/cron/crontabs
cp "$1" /var/spool/cron/crontabs/root
chmod 600 /var/spool/cron/crontabs/root
exec "$2" -f
"""

_MANAGER = """
set -e
hierarchies=$([ -e /sys/fs/cgroup/cgroup.controllers ] && echo /sys/fs/cgroup || ls -d /sys/fs/cgroup/*/)
for root in $hierarchies; do
  case $root in */cgroup|*/systemd/|*/unified/) mkdir "$root/$3"; echo 0 > "$root/$3/cgroup.procs";; esac
done
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/user
chmod 700 /run/user
export XDG_RUNTIME_DIR=/run/user SYSTEMD_UNIT_PATH="$1" HOME="$1"
"$2" --user --unit=bench.target
"""
"""A manager keeps to the cgroup in which it starts, so it gets one that can be removed with all below it."""

_SERVICE = """[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart={program}
StandardOutput=append:{out}
"""

_TIMER = """[Unit]
DefaultDependencies=no
[Timer]
OnCalendar=*-*-* *:*:{second}
AccuracySec=1us
"""


@asynccontextmanager
async def start_cron(directory: Path, program: Path, entries: int) -> AsyncIterator[Path]:
    """Run cron with a table of `entries` lines, all due every minute; the file gets what the program prints.

    Raises NotInstalled, PeerFailed.
    """
    cron = await _unpacked_cron()
    out, table = _write_table(directory, program, entries)
    async with _namespace(_CRON, [str(table), str(cron)], directory / "log"):
        yield out


@asynccontextmanager
async def start_timers(directory: Path, program: Path, entries: int, *, second: int) -> AsyncIterator[Path]:
    """Run systemd with as many timers, all due at a second of every minute; the file gets what the program prints.

    Raises NotInstalled, PeerFailed.
    """
    if not _has_systemd():
        raise NotInstalled("systemd is not on this machine")
    name = f"dts-bench-{os.getpid()}"
    out = _write_units(directory, program, entries, second)
    try:
        async with _namespace(_MANAGER, [str(directory), str(_SYSTEMD), name], directory / "log"):
            yield out
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(_BURIAL):
            while await anyio.to_thread.run_sync(_remove_cgroups, name):  # noqa: ASYNC110 - the kernel's doing
                await anyio.sleep(0.05)


async def systemd_version() -> str:
    """Return the machine's."""
    if not _has_systemd():
        return "(none)"
    done = await anyio.run_process([str(_SYSTEMD), "--version"], check=False)
    return done.stdout.decode().partition("(")[2].partition(")")[0]


def _has_systemd() -> bool:
    return _SYSTEMD.exists()


def _write_table(directory: Path, program: Path, entries: int) -> tuple[Path, Path]:
    directory.mkdir()
    out, table = directory / "out", directory / "table"
    out.touch()
    table.write_text(f"* * * * * {program} >> {out}\n" * entries)
    return out, table


def _write_units(directory: Path, program: Path, entries: int, second: int) -> Path:
    directory.mkdir()
    out = directory / "out"
    out.touch()
    for n in range(entries):
        (directory / f"bench-{n}.service").write_text(_SERVICE.format(program=program, out=out))
        (directory / f"bench-{n}.timer").write_text(_TIMER.format(second=second))
    wanted = " ".join(f"bench-{n}.timer" for n in range(entries))
    (directory / "bench.target").write_text(f"[Unit]\nDefaultDependencies=no\nWants={wanted}\n")
    return out


async def _unpacked_cron() -> Path:
    place = cache() / f"cron-{CRON_VERSION}"
    program = place / "root" / "usr" / "sbin" / "cron"
    if not program.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            await anyio.run_process(["apt-get", "download", "-qq", f"cron={CRON_VERSION}"], cwd=place)
            for package in place.glob("*.deb"):
                await anyio.run_process(["dpkg", "-x", str(package), str(place / "root")])
        except FileNotFoundError as error:
            raise NotInstalled("neither apt-get nor dpkg here") from error
        except subprocess.CalledProcessError as error:
            raise NotInstalled(f"apt-get: {error.stderr.decode(errors='replace').strip()[-300:]}") from error
    return program


@asynccontextmanager
async def _namespace(script: str, arguments: Sequence[str], log: Path) -> AsyncIterator[None]:
    """Run a script with mounts and processes of its own; all of them end when the block is left."""
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid():
        raise PeerFailed("needs root, for a namespace of its own")
    with log.open("wb") as file:
        process = await anyio.open_process(
            [*command, "sh", "-c", script, "sh", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        await anyio.sleep(_SETTLE)
        if process.returncode is not None:
            said = await anyio.Path(log).read_text(errors="replace")
            raise PeerFailed(f"did not start: {said[-600:]}")
        yield
    finally:
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()


def _remove_cgroups(name: str) -> bool:
    """Remove all groups of that name with all below them; say whether any is left, since its dead are not buried."""
    places = [path for depth in ("", "*/") for path in _CGROUPS.glob(f"{depth}{name}")]
    for place in places:
        for directory, _, _ in os.walk(place, topdown=False):
            with suppress(OSError):
                Path(directory).rmdir()
    return any(place.exists() for place in places)
