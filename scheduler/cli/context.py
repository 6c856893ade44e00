"""`dts context …`: several servers, by name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import FLAG, JSON, failure, say

app = App(
    name="context",
    help="""Know several servers by name, and choose which one commands go to.

They stand in `~/.config/dts/contexts.toml` (or under `$XDG_CONFIG_HOME`), keys in files of their own beside it.""",
)

Name = Annotated[str, Parameter(help="What you call it.")]


@app.command(name="list")
def list_contexts(*, json: JSON = False) -> int:
    """List the contexts; the current one is marked."""
    from scheduler.cli.contexts import read  # noqa: PLC0415 - not needed for help
    from scheduler.cli.output import Output  # noqa: PLC0415

    stored = _or_fail(lambda: read(os.environ))
    rows = [
        {
            "current": name == stored.current,
            "name": name,
            "server": context.server,
            "namespace": context.namespace,
            "key": context.key_file is not None,
            "ca_file": context.ca_file,
        }
        for name, context in sorted(stored.contexts.items())
    ]
    columns: dict[str, Callable[[dict[str, Any]], object]] = {
        "": lambda r: "*" if r["current"] else "",
        "name": lambda r: r["name"],
        "server": lambda r: r["server"],
        "namespace": lambda r: r["namespace"],
        "key": lambda r: r["key"],
    }
    Output(json=json).rows(rows, columns, empty="no contexts; make one with: dts context add NAME URL")
    return exits.OK


@app.command
def use(name: Name, /) -> int:
    """Send commands to this server from now on, where nothing else says where."""
    from scheduler.cli import contexts  # noqa: PLC0415 - not needed for help

    def change() -> None:
        stored = contexts.read(os.environ)
        if name not in stored.contexts:
            raise contexts.BadContext(f"no context {name!r}; `dts context list` shows what there is")
        stored.current = name
        contexts.write(os.environ, stored)

    _or_fail(change)
    return exits.OK


@app.command
def add(
    name: Name,
    server: Annotated[str, Parameter(help="Where its API is, such as https://dts.example.org.")],
    /,
    *,
    namespace: Annotated[str | None, Parameter(help="Namespace to work in. Default: the key's own.")] = None,
    key_file: Annotated[
        Path | None, Parameter(help="File with the API key, to be read at each use; it must be closed to others.")
    ] = None,
    ask_key: Annotated[
        bool, FLAG, Parameter(name="--key", help="Read the API key from standard input, and store it.")
    ] = False,
    ca_file: Annotated[Path | None, Parameter(help="Certificates (PEM) to trust instead of the system's.")] = None,
) -> int:
    """Remember a server, or change what is remembered of it; the first one becomes the current one.

    For the same URL, what is not said again stays; for another one nothing does, the key least of all.

    The key never stands on a command line, where everybody on the machine could read it.

    For example: `dts context add prod https://dts.example.org --key < key.txt`
    """
    from scheduler.cli import contexts  # noqa: PLC0415 - not needed for help
    from scheduler.client.access import Access  # noqa: PLC0415
    from scheduler.client.transport import options  # noqa: PLC0415

    if ask_key and key_file is not None:
        raise failure("--key and --key-file exclude each other", exits.USAGE)
    key = _typed_key() if ask_key else None

    def change() -> None:
        contexts.check_name(name)
        stored = contexts.read(os.environ)
        trusted = None if ca_file is None else str(ca_file.absolute())
        options(Access(server=server, api_key=key, ca_file=trusted), 1.0)  # complains about what cannot work
        kept = None if key_file is None else str(key_file.absolute())
        if key is not None:
            kept = contexts.write_key(os.environ, name, key)
        given = contexts.Context(server=server, namespace=namespace, key_file=kept, ca_file=trusted)
        context = contexts.changed(stored.contexts.get(name), given)
        stored.contexts[name] = context
        stored.current = stored.current or name
        contexts.write(os.environ, stored)
        contexts.forget_key(os.environ, name, context)
        if stored.current != name:
            say(f"commands still go to {stored.current}; to change that: dts context use {name}")

    _or_fail(change)
    return exits.OK


@app.command
def remove(name: Name, /) -> int:
    """Forget a server, and the key that was stored for it."""
    from scheduler.cli import contexts  # noqa: PLC0415 - not needed for help

    def change() -> None:
        stored = contexts.read(os.environ)
        if stored.contexts.pop(name, None) is None:
            raise contexts.BadContext(f"no context {name!r}; `dts context list` shows what there is")
        if stored.current == name:
            stored.current = None
        contexts.write(os.environ, stored)
        contexts.forget_key(os.environ, name)

    _or_fail(change)
    return exits.OK


def _typed_key() -> str:
    from getpass import getpass  # noqa: PLC0415 - rarely needed

    key = (getpass("API key: ") if sys.stdin.isatty() else sys.stdin.read()).strip()
    if not key:
        raise failure("no key on standard input", exits.USAGE)
    return key


def _or_fail(work: Callable[[], Any]) -> Any:
    from scheduler.cli.contexts import BadContext  # noqa: PLC0415 - not needed for help

    try:
        return work()
    except (BadContext, ValueError) as error:
        raise failure(str(error), exits.USAGE) from None
    except OSError as error:
        raise failure(f"{error.filename}: {error.strerror}") from None
