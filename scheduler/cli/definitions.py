"""How people change definitions of tasks: patches in files, `FIELD=VALUE`, and an editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from scheduler.cli import exits
from scheduler.cli.connection import failure, say
from scheduler.cli.output import ask, is_interactive, words
from scheduler.domain.task import TaskSpec

_FIELDS = TaskSpec.__struct_fields__
_one = msgspec.json.Decoder(TaskSpec)


def read_patch(file: Path) -> dict[str, Any]:
    """Return the merge patch in a file. Raises SystemExit."""
    try:
        return msgspec.json.decode(_read(file), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise failure(f"{file}: {error}", exits.USAGE) from None


def assignments(given: tuple[str, ...]) -> dict[str, Any]:
    """Return `FIELD=VALUE` words as a merge patch: VALUE is JSON where it can be, else text, and null if empty."""
    patch: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in _FIELDS:
            known = "" if name in _FIELDS else f"; fields are {', '.join(_FIELDS)}"
            raise failure(f"--set {text!r}: write FIELD=VALUE{known}", exits.USAGE)
        try:
            patch[name] = msgspec.json.decode(value) if value else None
        except msgspec.DecodeError:
            patch[name] = value
    return patch


def said(task: TaskSpec) -> list[str]:
    """Return the fields in which a definition differs from the defaults."""
    plain = TaskSpec(name=task.name, command=task.command)
    return ["name", "command"] + [f for f in _FIELDS if getattr(task, f) != getattr(plain, f)]


def shown(value: object) -> object:
    """Return a field as people read it: structures as JSON, commands as one would type them."""
    if isinstance(value, msgspec.Struct):
        return msgspec.json.encode(value).decode()
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return words(value)
    if isinstance(value, list):
        return msgspec.json.encode(value).decode()
    return value


def edited(task: TaskSpec) -> TaskSpec | None:
    """Let the user change a definition in their editor; None if they left it as it was. Raises SystemExit."""
    if not is_interactive():
        raise failure("no terminal to edit on; use --set FIELD=VALUE or --file PATCH", exits.USAGE)
    spec = TaskSpec(**{name: getattr(task, name) for name in _FIELDS})
    text = msgspec.json.format(msgspec.json.encode(spec), indent=2)
    while True:
        changed = _in_editor(text)
        if changed.strip() in (text.strip(), b""):
            return None
        try:
            return _one.decode(changed)
        except msgspec.DecodeError as error:
            say(f"{error}")
            if ask("edit again? [Y/n] ").startswith("n"):
                raise failure("nothing was changed") from None
            text = changed


def _in_editor(text: bytes) -> bytes:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.NamedTemporaryFile(prefix="dts-", suffix=".json") as file:
        file.write(text)
        file.flush()
        try:
            subprocess.run([*shlex.split(editor), file.name], check=True)  # noqa: S603 - the user's own editor
        except (OSError, subprocess.CalledProcessError) as error:
            raise failure(f"{editor}: {error}; set EDITOR, or use --set FIELD=VALUE") from None
        return Path(file.name).read_bytes()


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise failure(f"{file}: {error.strerror}", exits.USAGE) from None
