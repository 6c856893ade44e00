"""Reads crontabs: every schedule line becomes a task, or says why it cannot.

User format (fields, command), system format (fields, user, command), macros, and the dialects that put seconds first
or years last. As in cron, `NAME=value` lines count from there on, the first `%` of a command begins its standard input,
and `#` after a command belongs to it. What a task does differently from a cron job: a run is not started beside one
that has not ended, and the newest run missed within an hour is made up for. `MAILTO` sends no mail: output is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

import msgspec

from scheduler.domain import text as check
from scheduler.domain.complaints import quoted
from scheduler.domain.cron import parse_schedule
from scheduler.domain.errors import InvalidInput
from scheduler.domain.task import TaskSpec
from scheduler.domain.validation import normalise

_DEFAULT_SHELL = "/bin/sh"
_VARIABLE = re.compile(r"""(?P<name>"[^"]*"|'[^']*'|[A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(?P<value>.*)""", re.DOTALL)
_QUOTED = re.compile(r"""(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)')[ \t]*(?:\#.*)?""", re.DOTALL)
_WORD = re.compile(r"[^ \t]+")
_MORE_FIELDS = re.compile(r"[0-9*?/,#L-]+|(?:SUN|MON|TUE|WED|THU|FRI|SAT)[A-Z0-9,#-]*", re.IGNORECASE)
_PERCENT = re.compile(r"\\.|%", re.DOTALL)
_BEFORE_PROGRAM = re.compile(
    r"""(?:[ \t(]+|[A-Za-z_]\w*=(?:"[^"]*"|'[^']*'|[^\s"'])*[ \t]+|(?:cd|\.|source)[ \t]+\S+[ \t]*(?:&&|;))*"""
)
_PROGRAM = re.compile(r"[^\s;&|<>()\"'`]+")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._]+")
_SYSTEM_USERS = frozenset({"root", "www-data", "nobody", "daemon", "operator"})


class CrontabEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One schedule line: the task in its normal form, or the `problem` that forbids it. `notes` tell of differences."""

    line: int
    source: str
    task: TaskSpec | None = None
    problem: str | None = None
    notes: tuple[str, ...] = ()


class ZoneUnknown(Exception):
    """A schedule stands in `line` before anything says in which time zone it is."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line}: in which time zone?")
        self.line = line


class _Settings(msgspec.Struct):
    """What the lines above have set."""

    timezone: str | None
    env: dict[str, str] = {}
    shell: str = _DEFAULT_SHELL


class _Parts(msgspec.Struct, frozen=True):
    """A schedule line, taken apart. `plain`: any cron would read it so, and so give `%` its meaning."""

    schedule: str
    user: str | None
    command: str
    plain: bool


def parse_crontab(
    text: str, *, source: str, now: datetime, system: bool = False, timezone: str | None = "UTC"
) -> list[CrontabEntry]:
    """Return an entry for every schedule line, in order; comments, blank lines and variables have none.

    `source` (the file's name) goes into the tasks' names, `<source>-<line>-<program>`: unique within a file, the same
    at each reading. `timezone` holds where no `CRON_TZ` line says otherwise; where it is None too, raises ZoneUnknown.
    `now` is for validation.
    """
    settings = _Settings(timezone)
    entries = []
    for number, line in _lines(text):
        if variable := _VARIABLE.fullmatch(line):
            _set(settings, _unquoted(variable["name"]), _unquoted(variable["value"]))
            continue
        if settings.timezone is None:
            raise ZoneUnknown(number)
        try:
            entries.append(_entry(number, line, settings, source, now, system=system))
        except (ValueError, InvalidInput) as error:
            details = [f.detail for f in error.errors] if isinstance(error, InvalidInput) else [str(error)]
            entries.append(CrontabEntry(line=number, source=line, problem="; ".join(details)))
    return entries


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that say something, without the blanks around them, and their numbers from 1."""
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        stripped = line.strip(" \t\r")
        if stripped and not stripped.startswith("#"):
            yield number, stripped


def _unquoted(value: str) -> str:
    """Return what stands in quotes; a comment after closing quotes is dropped, elsewhere `#` is part of the value."""
    match = _QUOTED.fullmatch(value)
    return value if match is None else match["double"] or match["single"] or ""


def _set(settings: _Settings, name: str, value: str) -> None:
    match name:
        case "CRON_TZ":
            settings.timezone = value
        case "MAILTO" | "MAILFROM":
            pass
        case _:
            settings.env = settings.env | {name: value}
            if name == "SHELL":
                settings.shell = value


def _entry(number: int, line: str, settings: _Settings, source: str, now: datetime, *, system: bool) -> CrontabEntry:
    assert settings.timezone is not None
    parts = _split(line, settings.timezone, system=system)
    command, stdin = _percent(parts.command) if parts.plain else (parts.command, None)
    home = settings.env.get("HOME", "")
    task = TaskSpec(
        name=_name(source, number, command),
        command=command if settings.shell == _DEFAULT_SHELL else [settings.shell, "-c", command],
        env={**settings.env},
        schedule=parts.schedule,
        timezone=settings.timezone,
        dst_gap="shift",  # as cron does: what the clock leaves out runs right after
        timeout=None,
        user=parts.user,
        workdir=home if home.startswith("/") else None,
        stdin=stdin,
        tags=["crontab"],
        labels={"crontab": f"{source}:{number}"},
    )
    notes = tuple(_notes(command, stdin, system=system))
    return CrontabEntry(line=number, source=line, task=normalise(task, now), notes=notes)


def _notes(command: str, stdin: str | None, *, system: bool) -> Iterator[str]:
    if stdin is not None:
        yield "what follows the first % is standard input, as in cron; a percent sign is written \\%"
    if not system and (user := command.partition(" ")[0]) in _SYSTEM_USERS:
        yield f"the command begins with {user!r}: if that is the user, read this file in the system format"


def _split(line: str, timezone: str, *, system: bool) -> _Parts:
    """Take a schedule line apart. Raises ValueError if its schedule is none, or if something is missing."""
    words = list(_WORD.finditer(line))
    texts = [word[0] for word in words]
    count = _field_count(texts, timezone)
    schedule = " ".join(texts[:count])
    parse_schedule(schedule, timezone, hash_id="")
    rest = texts[count:]
    user = None
    if system:
        if not rest:
            raise ValueError("there is no user after the schedule, and no command")
        user = rest[0]
        if complaint := check.user(user):
            raise ValueError(f"{quoted(user)} {complaint} (is this a user's own crontab, without users?)")
        count += 1
    if len(words) <= count:
        raise ValueError("there is no command")
    return _Parts(schedule, user, line[words[count].start() :], plain=texts[0] != "@every" and count - system <= 5)


def _field_count(words: list[str], timezone: str) -> int:
    """Return how many words are the schedule: 1 or 2 for macros; else 7 or 6 if so many make one, else 5."""
    if words[0].startswith("@"):
        return 2 if words[0].lower() == "@every" else 1
    for count in (7, 6):
        if len(words) > count and all(_MORE_FIELDS.fullmatch(word) for word in words[5:count]):
            try:
                parse_schedule(" ".join(words[:count]), timezone, hash_id="")
            except ValueError:
                continue
            return count
    return 5


def _percent(command: str) -> tuple[str, str | None]:
    """Split a command at its first unescaped `%`: what follows is standard input, its further `%` are line ends."""
    first = next((match.start() for match in _PERCENT.finditer(command) if match[0] == "%"), None)
    if first is None:
        return command.replace("\\%", "%"), None
    lines = _PERCENT.sub(lambda m: {"%": "\n", "\\%": "%"}.get(m[0], m[0]), command[first + 1 :])
    stdin = lines if lines.endswith("\n") or not lines else lines + "\n"
    return command[:first].rstrip(" \t").replace("\\%", "%"), stdin


def _name(source: str, line: int, command: str) -> str:
    """Return `<file>-<line>-<program>`, in characters that need no quoting anywhere."""
    file = source.replace("\\", "/").rpartition("/")[2].removesuffix(".crontab")
    before = _BEFORE_PROGRAM.match(command)
    program = _PROGRAM.search(command, before.end() if before else 0)
    word = program[0].rstrip("/").rpartition("/")[2] if program else ""
    parts = [_NOT_IN_NAMES.sub("-", part).strip("-")[:100] for part in (file, str(line), word)]
    return "-".join(part for part in parts if part)
