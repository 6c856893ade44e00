"""`dts submit --file`: many tasks, from a file or as they come through a pipe.

A file is read twice, so that nothing is sent if anything in it cannot be a task. What comes through a pipe is sent as
it comes; where it breaks off, we say where to go on from.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from scheduler.cli import exits
from scheduler.cli.connection import Remote, explain, failure, say
from scheduler.cli.output import Output, progress
from scheduler.client.errors import ApiError, PartlySubmitted, Unreachable
from scheduler.client.tasks import BATCH_TASKS
from scheduler.domain.task import TaskSpec

if TYPE_CHECKING:
    from scheduler.client import Client, Created


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task stands: on a line, or `listed` in a JSON list, counted from 1."""

    number: int
    listed: bool = False

    def __str__(self) -> str:
        return f"task {self.number} of the list" if self.listed else f"line {self.number}"

    def rest(self, file: str) -> str:
        """Return the shell command that prints what stands in the file from here on, one task a line if listed."""
        return f"jq -c '.[{self.number - 1}:][]' {file}" if self.listed else f"tail -n +{self.number} {file}"


Placed = tuple[Place, TaskSpec]

_one = msgspec.json.Decoder(TaskSpec)
_many = msgspec.json.Decoder(list[TaskSpec])
_SHOWN = 10


def submit_file(remote: Remote, file: Path) -> list[Created]:
    """Create every task in a file; print their ids, or how many there are. Raises SystemExit."""
    total = None if _comes_once(file) else _checked(file)
    out = remote.output()
    made: list[Created] = []
    with remote.connect() as client, progress("submitting", total) as show, _opened(file) as stream:
        tasks = _read(stream, str(file))
        for chunk in _chunks(tasks, str(file)):
            made += _send(client, str(file), chunk, len(made), show, out)
    if out.pretty:
        say(f"{len(made)} tasks created")
    if not made:
        raise failure(f"{file}: there is nothing in it", exits.USAGE)
    return made


def _chunks(tasks: Iterator[Placed], name: str) -> Iterator[list[Placed]]:
    """Yield batches. Raises SystemExit, with what was done before, for a place that holds no task."""
    done = 0
    while True:
        chunk: list[Placed] = []
        try:
            chunk.extend(islice(tasks, BATCH_TASKS))
        except _NoTask as error:
            first = chunk[0][0] if chunk else error.place
            raise failure(f"{error}{_going_on(name, done, first)}", exits.USAGE) from None
        if not chunk:
            return
        yield chunk
        done += len(chunk)


def _send(
    client: Client, name: str, chunk: list[Placed], before: int, show: Callable[[int], None], out: Output
) -> list[Created]:
    error: ApiError | Unreachable
    try:
        made = client.submit_many([task for _, task in chunk], progress=lambda done: show(before + done))
    except PartlySubmitted as partly:
        made, error = partly.created, partly.error
    except (ApiError, Unreachable) as whole:
        made, error = [], whole
    else:
        _print(out, made)
        return made
    _print(out, made)
    raise _stopped(client, name, chunk[len(made) :], error, before + len(made))


def _print(out: Output, made: list[Created]) -> None:
    if not out.pretty:
        for item in made:
            out.data(item)
        sys.stdout.flush()


def _stopped(client: Client, name: str, rest: list[Placed], error: ApiError | Unreachable, done: int) -> SystemExit:
    """Say what is wrong with which tasks, and where to go on."""
    lines = []
    if isinstance(error, ApiError):
        for complaint in error.problem.errors[:_SHOWN]:
            _, index, *path = complaint.pointer.split("/") if complaint.pointer.startswith("/") else ("", "")
            if index.isdigit() and int(index) < len(rest):
                lines.append(f"{rest[int(index)][0]}: {'/'.join(['', *path])}: {complaint.detail}")
        if lines and (more := len(error.problem.errors) - _SHOWN) > 0:
            lines.append(f"and {more} more")
    message, code = explain(error, client.server)
    text = "\n     ".join(lines) if lines else message
    if done or error.in_doubt:
        text += _going_on(name, done, rest[0][0], in_doubt=error.in_doubt)
    return failure(text, code)


def _going_on(name: str, done: int, first: Place, *, in_doubt: bool = False) -> str:
    """Say what stands, and how to send the rest."""
    fate = "may have been created" if in_doubt else "was not"
    text = f"\n     {done} tasks were created; what follows, from {first} on, {fate}"
    if name != "-":
        text += f"\n     to go on once that is mended: {first.rest(name)} | dts submit --file -"
    return text


def _comes_once(file: Path) -> bool:
    return str(file) == "-" or not file.is_file()


def _opened(file: Path) -> IO[bytes]:
    if str(file) == "-":
        return sys.stdin.buffer
    try:
        return file.open("rb")
    except OSError as error:
        raise failure(f"{file}: {error.strerror}", exits.USAGE) from None


def _checked(file: Path) -> int:
    """Return how many tasks there are. Raises SystemExit with the places that hold none."""
    count = 0
    errors: list[str] = []
    with _opened(file) as stream:
        for _ in _read(stream, str(file), errors):
            count += 1
    if errors:
        more = f"\n     and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise failure("\n     ".join(errors[:_SHOWN]) + more + "\n     nothing was sent", exits.USAGE)
    return count


def _read(stream: IO[bytes], name: str, errors: list[str] | None = None) -> Iterator[Placed]:
    """Yield the tasks in a stream: one a line, a JSON list, or one object over several lines.

    Complaints are collected in `errors` where that is given; else the first one raises _NoTask.
    """
    lines = ((number, line) for number, line in enumerate(stream, 1) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    head = first[1].strip()
    if not (head.startswith(b"{") and head.endswith(b"}")):
        yield from _read_whole(first[1] + stream.read(), name, errors)
        return
    for number, line in chain([first], lines):
        try:
            yield Place(number), _one.decode(line)
        except msgspec.DecodeError as error:
            _complain(f"{name}:{number}: {error}", Place(number), errors)


def _read_whole(data: bytes, name: str, errors: list[str] | None) -> Iterator[Placed]:
    listed = data.lstrip().startswith(b"[")
    try:
        tasks = _many.decode(data) if listed else [_one.decode(data)]
    except msgspec.DecodeError as error:
        _complain(f"{name}: {error}", Place(1, listed), errors)
    else:
        for number, task in enumerate(tasks, 1):
            yield Place(number, listed), task


def _complain(text: str, place: Place, errors: list[str] | None) -> None:
    if errors is None:
        raise _NoTask(text, place)
    errors.append(text)


class _NoTask(Exception):
    """What stands there is no task."""

    def __init__(self, text: str, place: Place) -> None:
        super().__init__(text)
        self.place = place
