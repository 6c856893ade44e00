"""Servers by name: a TOML file that says where each is, and a private file with the key for it.

    $XDG_CONFIG_HOME/dts/contexts.toml      (~/.config where the variable is not set)
    $XDG_CONFIG_HOME/dts/keys/NAME          readable by nobody else

A key belongs to its context: it is sent to no other server than the one that it was given for.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from scheduler.client import DEFAULT_SERVER
from scheduler.client.access import Access, key_from_environment, read_key


class Context(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One server. `key_file` is relative to the contexts file."""

    server: str
    namespace: str | None = None
    key_file: str | None = None
    ca_file: str | None = None


class Contexts(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The whole file. `current` is used where nothing else says which."""

    current: str | None = None
    contexts: dict[str, Context] = {}


class BadContext(Exception):
    """The file cannot be read, names nothing such, or contradicts itself; says what to do."""


def home(env: Mapping[str, str]) -> Path:
    """Return the directory in which contexts are kept."""
    base = env.get("XDG_CONFIG_HOME")
    if base and Path(base).is_absolute():  # the specification says to ignore others
        return Path(base) / "dts"
    return Path(env.get("HOME") or Path.home()) / ".config" / "dts"


def read(env: Mapping[str, str]) -> Contexts:
    """Return what is stored, nothing if there is no file. Raises BadContext."""
    file = home(env) / "contexts.toml"
    try:
        return msgspec.toml.decode(file.read_bytes(), type=Contexts)
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise BadContext(f"{file}: {error.strerror}") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadContext(f"{file}: {error}") from None


def write(env: Mapping[str, str], contexts: Contexts) -> None:
    """Replace the file, whole or not at all. Raises OSError."""
    _write_private(home(env) / "contexts.toml", msgspec.toml.encode(contexts))


def write_key(env: Mapping[str, str], name: str, key: str) -> str:
    """Store a context's key for its owner's eyes only; return the file's name for `key_file`. Raises OSError."""
    _write_private(home(env) / _key_file(name), key.encode() + b"\n")
    return _key_file(name)


def forget_key(env: Mapping[str, str], name: str, context: Context | None = None) -> None:
    """Delete the key that we stored under a name, unless the context uses it; files elsewhere are their owners'."""
    here = home(env)
    stored = here / _key_file(name)
    if context is None or context.key_file is None or (here / context.key_file).resolve() != stored.resolve():
        stored.unlink(missing_ok=True)


def changed(before: Context | None, given: Context) -> Context:
    """Return what to remember of a server: what is not given again stays, unless it is another server."""
    if before is None or before.server.rstrip("/") != given.server.rstrip("/"):
        return given
    said = {field: value for field, value in msgspec.structs.asdict(given).items() if value is not None}
    return msgspec.structs.replace(before, **said)


def check_name(name: str) -> str:
    """Return the name of a context. Raises BadContext for one that could not name a file."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise BadContext(f"{name!r} is no name for a context: use letters, digits, dot, dash and underscore")
    return name


def resolve(env: Mapping[str, str], server: str | None, name: str | None) -> Access:
    """Return where a command goes, by what was given: flags, then the environment, then the current context.

    In order: `--server`, `--context`, `DTS_SERVER`, `DTS_CONTEXT`, `DTS_API_URL` (inside a task), the current context,
    this machine. The key is the context's; without a context, or where it has none, that of the environment.
    Raises BadContext.
    """
    if server is None and name is None:
        server, name = env.get("DTS_SERVER") or None, env.get("DTS_CONTEXT") or None
        if server is not None and name is not None:
            raise BadContext("DTS_SERVER and DTS_CONTEXT both say where to go; unset one of them")
    if server is None and name is None:
        server = env.get("DTS_API_URL") or None
    try:
        if server is not None:
            return Access(server=server, api_key=key_from_environment(env), namespace=env.get("DTS_NAMESPACE") or None)
        return _of_context(env, read(env), name)
    except ValueError as error:
        raise BadContext(str(error)) from None


def _of_context(env: Mapping[str, str], stored: Contexts, name: str | None) -> Access:
    name = name or stored.current
    namespace = env.get("DTS_NAMESPACE") or None
    if name is None:
        return Access(server=DEFAULT_SERVER, api_key=key_from_environment(env), namespace=namespace)
    context = stored.contexts.get(name)
    if context is None:
        known = f"there are {', '.join(sorted(stored.contexts))}" if stored.contexts else "there are none yet"
        raise BadContext(f"no context {name!r}; {known}; make one with: dts context add {name} URL")
    here = home(env)
    return Access(
        server=context.server,
        api_key=key_from_environment(env)
        if context.key_file is None
        else read_key(here / context.key_file, private=True),
        namespace=namespace or context.namespace,
        ca_file=None if context.ca_file is None else str(here / context.ca_file),
    )


def _key_file(name: str) -> str:
    return f"keys/{name}"


def _write_private(file: Path, data: bytes) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # made with mode 0600
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(data)
        Path(aside).replace(file)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
