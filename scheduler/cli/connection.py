"""What every command that talks to a server shares: where it is, how answers look, and how failures end the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Group, Parameter

from scheduler.cli import exits

if TYPE_CHECKING:
    from scheduler.cli.output import Output
    from scheduler.client import Client, ClientError, Task
    from scheduler.client.access import Access

FLAG = Parameter(negative=(), show_default=False)
"""A switch that is off unless given."""

DASH = Parameter(allow_leading_hyphen=True)
"""A file's name that may be -, for standard input."""

_GROUP = Group("Server and output", sort_key=100)

JSON = Annotated[bool, FLAG, Parameter(help="One JSON object a line, also on a terminal.", group=_GROUP)]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Remote:
    """Where the server is and how to print what it says."""

    server: Annotated[
        str | None,
        Parameter(help="Where the API is (or DTS_SERVER). Default: http://127.0.0.1:8080.", group=_GROUP),
    ] = None
    context: Annotated[
        str | None,
        Parameter(help="Which of `dts context list` (or DTS_CONTEXT). Default: the current one.", group=_GROUP),
    ] = None
    api_key_file: Annotated[
        Path | None,
        Parameter(help="File with the API key (or DTS_API_KEY_FILE, DTS_API_KEY).", group=_GROUP),
    ] = None
    json: JSON = False

    def output(self) -> Output:
        """Return where the command's answers go."""
        from scheduler.cli.output import Output  # noqa: PLC0415 - not needed for help

        return Output(json=self.json)

    def access(self) -> Access:
        """Return where the server is and what shows it who asks; exits where that is said wrong."""
        from scheduler.cli.contexts import BadContext, resolve  # noqa: PLC0415 - not needed for help
        from scheduler.client.access import read_key  # noqa: PLC0415

        if self.server is not None and self.context is not None:
            raise failure("--server and --context both say where to go; give one of them", exits.USAGE)
        try:
            access = resolve(os.environ, self.server, self.context)
            if self.api_key_file is not None:
                access = msgspec.structs.replace(access, api_key=read_key(self.api_key_file, private=False))
        except (BadContext, ValueError) as error:
            raise failure(str(error), exits.CONFIG) from None
        return access

    @contextmanager
    def connect(self, *, patient: bool = False) -> Iterator[Client]:
        """Yield a client; what it raises is explained on stderr and ends the command with the right exit code.

        A `patient` one also bridges the restart of a server: for waiting, once the server has been there.
        """
        from scheduler.client import PATIENT, Client, ClientError, RetryPolicy  # noqa: PLC0415 - not needed for help

        access = self.access()
        try:
            client = Client(access, retries=PATIENT if patient else RetryPolicy())
        except ValueError as error:
            raise failure(str(error), exits.USAGE) from None
        with client:
            try:
                yield client
            except ClientError as error:
                message, code = explain(error, client.server)
                raise failure(message, code) from None


REMOTE = Remote()


def say(message: str) -> None:
    """Tell the user something on stderr, so that stdout stays data."""
    sys.stderr.write(f"dts: {message}\n")
    sys.stderr.flush()


def failure(message: str, code: int = exits.FAILURE) -> SystemExit:
    """Say what is wrong on stderr, and return the exit to raise."""
    say(message)
    return SystemExit(code)


def need(given: Sequence[str], what: str) -> None:
    """Have a command that acts on each of some things told of which ones. Raises SystemExit."""
    if not given or not all(given):
        raise failure(f"say which {what}", exits.USAGE)


def explain(error: ClientError, server: str) -> tuple[str, int]:
    """Return what to tell the user about an error, with what to do next, and the exit code."""
    from scheduler.client import (  # noqa: PLC0415 - not needed for help
        ApiError,
        BadAnswer,
        Forbidden,
        NotAuthenticated,
        Overloaded,
        Unreachable,
        WaitTimeout,
    )

    if isinstance(error, Unreachable):
        text = f"no answer from {server}: {error}"
        if error.sent:
            text += "\n     whether the request was carried out is not known: look before you repeat it"
        else:
            text += "\n     start one with `dts up`, or say where it is: --server, DTS_SERVER, or `dts context`"
        return text, exits.UNAVAILABLE
    if isinstance(error, WaitTimeout):
        return f"{error}; it goes on", exits.RETRY
    if isinstance(error, BadAnswer):
        return f"{error}\n     is {server} a task scheduler of this release?", exits.FAILURE
    if isinstance(error, ApiError):
        complaints = [f"     {e.pointer or '/'}: {e.detail}" for e in error.problem.errors]
        single = len(complaints) == 1 and error.problem.errors[0].detail in str(error)
        lines = [str(error), *([] if single else complaints)]
        if isinstance(error, Overloaded):
            after = f" in {error.retry_after:g} s" if error.retry_after else " later"
            lines.append(f"     try again{after}")
            return "\n".join(lines), exits.RETRY
        if isinstance(error, NotAuthenticated):
            lines.append("     set DTS_API_KEY or DTS_API_KEY_FILE, or store a key: dts context add NAME URL --key")
        if isinstance(error, Forbidden):
            lines.append("     ask whoever administers the server for a role that may")
        if error.status >= 500 and error.problem.request_id:
            lines.append(f"     the server's log says more about request {error.problem.request_id}")
        return "\n".join(lines), exits.FAILURE
    return str(error), exits.FAILURE


def task_id(client: Client, reference: str) -> str:
    """Return the id of a task given by id, or by a name that only one task has. Raises SystemExit."""
    return reference if _is_id(reference) else str(_named(client, reference).id)


def find_task(client: Client, reference: str) -> Task:
    """Return a task given by id, or by a name that only one task has. Raises SystemExit."""
    return client.task(reference) if _is_id(reference) else _named(client, reference)


def _named(client: Client, name: str) -> Task:
    found = []
    for task in client.tasks(name=name, page=10):
        found.append(task)
        if len(found) == 6:
            break
    if not found:
        raise failure(f"no task is named {name!r}; `dts task list` shows what there is")
    if len(found) > 1:
        listed = "\n".join(f"     {task.id}  {task.status}" for task in found[:5])
        more = "\n     …" if len(found) > 5 else ""
        raise failure(f"several tasks are named {name!r}; say which one by its id:\n{listed}{more}")
    return found[0]


def _is_id(text: str) -> bool:
    from uuid import UUID  # noqa: PLC0415 - not needed for help

    try:
        UUID(text)
    except ValueError:
        return False
    return True
