"""`dts dlq …`: runs that used up their budgets wait here until somebody decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import FLAG, REMOTE, Remote, failure, task_id

if TYPE_CHECKING:
    from uuid import UUID

    from scheduler.client import Client, Decided, Selection

app = App(name="dlq", help="Look at dead letters, revive their runs, or close them.")

_PAGE = 1000


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Filter:
    """Which open dead letters."""

    queue: Annotated[str | None, Parameter(help="Only of this queue.")] = None
    task: Annotated[str | None, Parameter(help="Only of this task (id or name).")] = None
    reason: Annotated[str | None, Parameter(help="Only with this reason, such as exit:3, exit or lost.")] = None

    @property
    def empty(self) -> bool:
        """Whether it matches everything."""
        return self == Filter()


ANY = Filter()


@app.command(name="list")
def list_letters(
    *,
    which: Filter = ANY,
    limit: Annotated[int, Parameter(help="At most so many; 0: all.")] = 50,
    remote: Remote = REMOTE,
) -> int:
    """List open dead letters, newest first."""
    from scheduler.cli.output import at_most  # noqa: PLC0415 - not needed for help

    columns: dict[str, Callable[[Any], object]] = {
        "dead letter": lambda d: d.id,
        "task": lambda d: d.task_name,
        "reason": lambda d: d.reason,
        "attempts": lambda d: d.attempt,
        "since": lambda d: d.created_at,
        "run": lambda d: d.run_id,
    }
    with remote.connect() as client:
        task = None if which.task is None else task_id(client, which.task)
        letters = client.dead_letters(
            queue=which.queue, task=task, reason=which.reason, page=min(limit or _PAGE, _PAGE)
        )
        remote.output().rows(at_most(letters, limit), columns, empty="no dead letters")
    return exits.OK


@app.command
def replay(
    *letters: Annotated[str, Parameter(help="Dead letter ids.")],
    which: Filter = ANY,
    everything: Annotated[bool, FLAG, Parameter(name="--all", help="All that match the filter.")] = False,
    edit: Annotated[
        str | None, Parameter(help='First change the tasks by this merge patch, such as \'{"timeout": "2h"}\'.')
    ] = None,
    canary: Annotated[
        int | None, Parameter(help="Run so many first, of each thousand, and the rest only once these have completed.")
    ] = None,
    remote: Remote = REMOTE,
) -> int:
    """Revive dead runs with fresh budgets: those given, or all that match. Exit 1 if any was refused."""
    edits = None if edit is None else _merge_patch(edit)

    def decide(client: Client, selection: Selection) -> list[Decided]:
        return client.replay_dead_letters(selection, edits=edits, canary=canary)

    return _decide(letters, which, remote, decide, "replaying", everything=everything)


@app.command
def discard(
    *letters: Annotated[str, Parameter(help="Dead letter ids.")],
    which: Filter = ANY,
    everything: Annotated[bool, FLAG, Parameter(name="--all", help="All that match the filter.")] = False,
    remote: Remote = REMOTE,
) -> int:
    """Close dead letters without reviving their runs. Exit 1 if any was refused."""

    def decide(client: Client, selection: Selection) -> list[Decided]:
        return client.discard_dead_letters(selection)

    return _decide(letters, which, remote, decide, "discarding", everything=everything)


def _decide(
    letters: tuple[str, ...],
    which: Filter,
    remote: Remote,
    decide: Callable[[Client, Selection], list[Decided]],
    title: str,
    *,
    everything: bool,
) -> int:
    if bool(letters) == (everything or not which.empty):
        raise failure("give either dead letter ids, or a filter, or --all", exits.USAGE)
    from scheduler.cli.output import progress  # noqa: PLC0415 - not needed for help
    from scheduler.client import Selection  # noqa: PLC0415

    refused = 0
    with remote.connect() as client, progress(title, len(letters) or None) as show:
        out = remote.output()
        done = 0
        for ids in _selected(client, letters, which):
            decided = decide(client, Selection(ids=ids))
            for item in decided:
                refused += item.result == "refused"
                out.done(item, f"{item.id} {item.result}" + (f": {item.code}" if item.code else ""))
            done += len(decided)
            show(done)
    return exits.FAILURE if refused else exits.OK


def _selected(client: Client, letters: tuple[str, ...], which: Filter) -> Iterator[list[UUID]]:
    """Yield what to decide, a bounded number at a time and each once: what is refused stays open, and is passed by."""
    from uuid import UUID  # noqa: PLC0415 - not needed for help

    ids: Iterator[UUID]
    if letters:
        try:
            ids = iter([UUID(letter) for letter in letters])
        except ValueError:
            raise failure("dead letters are given by id; `dts dlq list` shows them", exits.USAGE) from None
    else:
        task = None if which.task is None else task_id(client, which.task)
        found = client.dead_letters(queue=which.queue, task=task, reason=which.reason, page=_PAGE)
        ids = (letter.id for letter in found)
    while chosen := list(islice(ids, _PAGE)):
        yield chosen


def _merge_patch(text: str) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415 - not needed for help

    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise failure(f"--edit is no JSON object: {error}", exits.USAGE) from None
