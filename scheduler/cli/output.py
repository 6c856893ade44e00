"""How answers look: tables for people on a terminal, one JSON object a line otherwise. stdout is data only."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

T = TypeVar("T")

_STATE_STYLES = {
    "completed": "green",
    "running": "cyan",
    "live": "green",
    "queued": "blue",
    "pending": "blue",
    "scheduled": "blue",
    "paused": "yellow",
    "draining": "yellow",
    "skipped": "yellow",
    "cancelled": "yellow",
    "failed": "red",
    "dead_letter": "red",
    "dead": "red",
}


_VERDICT_STYLES = {"ok": "green", "note": "yellow", "wrong": "bold red"}


class Output:
    """Where one command's answers go. `json` asks for JSON on a terminal too."""

    def __init__(self, *, json: bool) -> None:
        self.pretty = sys.stdout.isatty() and not json
        self._console = Console(color_system=None if os.environ.get("NO_COLOR") else "auto")

    def rows(self, items: Iterable[T], columns: Mapping[str, Callable[[T], object]], *, empty: str = "nothing") -> int:
        """Print a list and return how long it was; `columns` are what a table shows, JSON shows everything."""
        count = 0
        if not self.pretty:
            for count, item in enumerate(items, 1):  # noqa: B007 - counts what was printed
                self.data(item)
            return count
        cells = [[_cell(column(item)) for column in columns.values()] for item in items]
        if cells:
            self._table(list(columns), cells)
        else:
            sys.stderr.write(f"{empty}\n")
        return len(cells)

    def _table(self, heads: list[str], cells: list[list[Text]]) -> None:
        """Print rows of one line each, as wide as they are: ids can be copied, and a terminal may wrap them.

        Columns that say nothing in any row are left out.
        """
        shown = [i for i in range(len(heads)) if any(row[i] for row in cells)]
        widths = {i: max(len(heads[i]), *(row[i].cell_len for row in cells)) for i in shown}
        for row in [[Text(head, style="bold") for head in heads], *cells]:
            line = Text()
            for i in shown:
                line.append_text(row[i])
                if i != shown[-1]:
                    line.append(" " * (widths[i] - row[i].cell_len + 2))
            line.rstrip()
            self._console.print(line, soft_wrap=True)

    def one(self, item: T, fields: Mapping[str, Callable[[T], object]]) -> None:
        """Print one object: a line for each field that says something, or JSON with everything."""
        if not self.pretty:
            self.data(item)
            return
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, field in fields.items():
            value = field(item)
            if value not in (None, "", [], {}):
                table.add_row(name, _cell(value))
        self._console.print(table)

    def data(self, item: object) -> None:
        """Print one JSON object."""
        sys.stdout.write(msgspec.json.encode(item).decode() + "\n")

    def show(self, drawing: RenderableType) -> None:
        """Print what somebody has drawn for people."""
        self._console.print(drawing)

    @contextmanager
    def live(self) -> Iterator[Callable[[RenderableType], None]]:
        """Take the whole terminal; call what is yielded with what to show."""
        with Live(console=self._console, screen=True, auto_refresh=False) as screen:
            yield lambda drawing: screen.update(drawing, refresh=True)

    def verdict(self, verdict: str, subject: str, says: str, fix: str) -> None:
        """Print one finding, and below it what would mend it."""
        line = Text.assemble((f"{verdict:<8}", _VERDICT_STYLES.get(verdict, "")), f"{subject}: {says}")
        self._console.print(line, soft_wrap=True)
        if fix:
            self._console.print(Text(f"          → {fix}"), soft_wrap=True)

    def done(self, item: object, text: str) -> None:
        """Say that something was done: `text` for people, the object for programs."""
        if self.pretty:
            self._console.print(Text(text))
        else:
            self.data(item)


def at_most(items: Iterable[T], limit: int) -> Iterator[T]:
    """Yield the first `limit` items (0: all), and say on stderr if there are more."""
    for count, item in enumerate(items):
        if limit and count == limit:
            sys.stderr.write(f"there are more than these {limit}; --limit 0 shows all\n")
            return
        yield item


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr, if that is a terminal; call what is yielded with how much is done so far."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        job = bar.add_task(title, total=total)
        yield lambda done: bar.update(job, completed=done)


def when(moment: datetime | None) -> str:
    """Show a moment in the local zone, to the second."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def took(start: datetime | None, end: datetime | None) -> str:
    """Show how long something took."""
    if start is None or end is None:
        return ""
    seconds = (end - start).total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}h{minutes % 60:02}m" if minutes >= 60 else f"{minutes}m{rest:02}s"


def words(command: Sequence[str] | str) -> str:
    """Show a command as one would type it."""
    import shlex  # noqa: PLC0415 - for people only

    return command if isinstance(command, str) else shlex.join(command)


def _cell(value: Any) -> Text:
    if value is None:
        return Text("")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, datetime):
        return Text(when(value))
    if isinstance(value, list | tuple):
        return Text(" ".join(map(str, value)))
    if isinstance(value, dict):
        return Text(" ".join(f"{key}={item}" for key, item in value.items()))
    return styled(str(value))


def styled(text: str) -> Text:
    """Return a word in the colour of the state that it names, if it does."""
    return Text(text, style=_STATE_STYLES.get(text, ""))


def ask(question: str) -> str:
    """Ask whoever sits at the terminal; return the answer in lower case, empty if there is none."""
    sys.stderr.write(question)  # not `input`, which writes to stdout where that is no terminal
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower()


def is_interactive() -> bool:
    """Say whether a person can be asked something."""
    return sys.stdin.isatty() and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
