"""What `dts doctor` thinks of what it found: each fact judged, with what to do where it is not as it should be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

from scheduler.domain.blockers import LEADER_SILENT_AFTER

Verdict = Literal["ok", "note", "wrong", "skipped"]

OLDEST_POSTGRES: Final = 15
OLDEST_PYTHON: Final = (3, 11)
_CLOCKS_APART: Final = 1.0  # seconds, on top of what asking took
_OPEN_FILES: Final = 4096
_CONNECTIONS: Final = 60  # one of each role, with their pools


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at: `wrong` breaks a promise or stops work, `note` may be meant so. `fix` says what to do."""

    area: str
    name: str
    verdict: Verdict
    says: str
    fix: str = ""


class PostgresFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`settings` as the server shows them; `apart` is its clock minus ours in seconds, to within `doubt`."""

    version: int
    settings: Mapping[str, str]
    standby: bool
    connections: int
    apart: float
    doubt: float


class RedisFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`unfit` is what the broker refuses it for, empty if it does not."""

    product: str
    version: str
    unfit: str
    apart: float
    doubt: float


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The machine, as a worker would find it. `containment` is what keeps a command's processes together."""

    python: tuple[int, ...]
    platform: str
    outdated: Sequence[str]
    open_files: int
    containment: str
    unwritable: Sequence[str]
    readable_keys: Sequence[str]


def server_away(area: str, why: str) -> Check:
    """Say that a server does not answer."""
    fix = "start it, or mend its address or login; everything else about it is unknown"
    return Check(area=area, name="reachable", verdict="wrong", says=why, fix=fix)


def server_refuses(area: str, why: str) -> Check:
    """Say that a server does not tell what it was asked."""
    fix = "where rights are missing, connect as a role of the server or as the owner of the tables (dts_migrate)"
    return Check(area=area, name="answers", verdict="wrong", says=why, fix=fix)


def server_unknown(area: str, setting: str) -> Check:
    """Say that nobody said where a server is."""
    return Check(area=area, name="address", verdict="skipped", says="no address is given", fix=f"give {setting}")


def judge_postgres(facts: PostgresFacts) -> Iterator[Check]:
    """Judge the server that holds the truth."""
    major = facts.version // 10_000
    yield _check(
        "postgresql", "version", major >= OLDEST_POSTGRES, f"PostgreSQL {major}", f"use {OLDEST_POSTGRES} or newer"
    )
    yield _judge_place(facts)
    for setting in ("fsync", "full_page_writes", "autovacuum"):
        value = facts.settings.get(setting, "unknown")
        yield _check("postgresql", setting, value == "on", f"{setting} = {value}", f"ALTER SYSTEM SET {setting} = on")
    value = facts.settings.get("synchronous_commit", "unknown")
    yield _check(
        "postgresql",
        "synchronous_commit",
        value != "off",
        f"synchronous_commit = {value}",
        "ALTER SYSTEM SET synchronous_commit = on: with off, a crash loses work that was acknowledged",
    )
    most = int(facts.settings.get("max_connections", "0"))
    yield _check(
        "postgresql",
        "max_connections",
        most >= _CONNECTIONS,
        f"{facts.connections} of {most} connections are in use",
        f"ALTER SYSTEM SET max_connections = 200, and restart: each role has a pool ({_CONNECTIONS} at least)",
        otherwise="note",
    )
    yield judge_clock("postgresql", facts.apart, facts.doubt)


def _judge_place(facts: PostgresFacts) -> Check:
    if facts.standby:
        fix = "point database.url at the primary; target_session_attrs=read-write finds it among several hosts"
        return _check("postgresql", "primary", False, "is a standby", fix)
    value = facts.settings.get("default_transaction_read_only", "unknown")
    says = "takes no writes: default_transaction_read_only = on" if value == "on" else "takes writes"
    fix = "ALTER SYSTEM, or ALTER DATABASE … or ROLE …, SET default_transaction_read_only = off"
    return _check("postgresql", "primary", value != "on", says, fix)


def judge_redis(facts: RedisFacts) -> Iterator[Check]:
    """Judge the accelerator."""
    yield _check(
        "redis",
        "fit",
        not facts.unfit,
        facts.unfit or f"{facts.product} {facts.version}, noeviction",
        "Redis 7.0 or Valkey 7.2, or newer, no replica, with: CONFIG SET maxmemory-policy noeviction",
    )
    yield judge_clock("redis", facts.apart, facts.doubt)


def judge_clock(area: str, apart: float, doubt: float) -> Check:
    """Judge how far a server's clock is from ours."""
    return _check(
        area,
        "clock",
        abs(apart) <= _CLOCKS_APART + doubt,
        f"its clock is {apart:+.3f} s from this machine's",
        "let chrony or systemd-timesyncd set the clocks of both machines",
        otherwise="note",
    )


def judge_schema(missing: Sequence[str]) -> Check:
    """Judge whether the database is as this release needs it."""
    says = f"{len(missing)} migrations are missing, the first is {missing[0]}" if missing else "is current"
    return _check("schema", "migrations", not missing, says, "dts migrate up")


def judge_fleet(silent: float | None, workers: int) -> Iterator[Check]:
    """Judge whether work would be done: `silent` is how long the leader has not renewed, None if nobody leads."""
    leads = silent is not None and silent < LEADER_SILENT_AFTER
    says = "nobody leads" if silent is None else f"the leader renewed its term {silent:.1f} s ago"
    yield _check("fleet", "leader", leads, says, "start dts-scheduler, or look into its log")
    yield _check("fleet", "workers", workers > 0, f"{workers} workers are live", "start dts-worker")


def judge_host(facts: HostFacts) -> Iterator[Check]:
    """Judge this machine."""
    version = ".".join(map(str, facts.python))
    wanted = ".".join(map(str, OLDEST_PYTHON))
    yield _check("host", "python", facts.python >= OLDEST_PYTHON, f"Python {version}", f"use {wanted} or newer")
    says = "older than needed: " + ", ".join(facts.outdated) if facts.outdated else "new enough"
    yield _check("host", "libraries", not facts.outdated, says, "pip install --upgrade distributed-task-scheduler")
    yield _check(
        "host",
        "platform",
        facts.platform == "linux",
        facts.platform,
        "for development only: elsewhere than on Linux no guard can promise that no process outlives its worker",
        otherwise="note",
    )
    yield _check(
        "host",
        "containment",
        facts.containment.startswith("cgroup"),
        facts.containment,
        "let workers write to their cgroup (systemd: Delegate=yes): it keeps daemons in, and limits need it",
        otherwise="note",
    )
    yield _check(
        "host",
        "open files",
        facts.open_files >= _OPEN_FILES,
        f"at most {facts.open_files} files may be open",
        f"ulimit -n {_OPEN_FILES * 16}, or LimitNOFILE= in the unit",
        otherwise="note",
    )
    says = "cannot be written: " + ", ".join(facts.unwritable) if facts.unwritable else "can be written"
    yield _check("host", "directories", not facts.unwritable, says, "give them to the account that runs the roles")
    says = "others can read: " + ", ".join(facts.readable_keys) if facts.readable_keys else "are closed to others"
    yield _check("host", "stored keys", not facts.readable_keys, says, "chmod 600 them, and replace them")


def _check(area: str, name: str, good: bool, says: str, fix: str, *, otherwise: Verdict = "wrong") -> Check:
    return Check(area=area, name=name, verdict="ok" if good else otherwise, says=says, fix="" if good else fix)
