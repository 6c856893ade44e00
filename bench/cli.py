"""The command line: `python -m bench [QUESTION…]`."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
from cyclopts import App, Parameter
from rich.console import Console

import bench as bench_package
from bench import compare as comparing
from bench import report as reporting
from bench.peers.catalog import PEERS
from bench.peers.orchestrators import ORCHESTRATORS
from bench.question import Bench
from bench.questions import QUESTIONS
from bench.runner import run

app = App(name="dts-bench", help=bench_package.__doc__, version_flags=[])


@app.default
def bench(
    *questions: str,
    runs: Annotated[
        int | None, Parameter(help="Rounds of every question (5; quick: 1). Fewer than 5 is no result.")
    ] = None,
    quick: Annotated[
        bool, Parameter(negative="", help="Small sizes; asserts ratios within wide margins. For CI.")
    ] = False,
    out: Annotated[Path, Parameter(help="Where bench.json, bench.md and plots/ go.")] = Path("bench-results"),
    work: Annotated[Path | None, Parameter(help="Where the systems keep their data meanwhile: a real disk.")] = None,
    pending: Annotated[
        int | None, Parameter(help="Runs that wait in the large system of `backlog` (1,000,000; quick: 20,000).")
    ] = None,
    history: Annotated[
        int | None, Parameter(help="Runs that have ended in the large system of `backlog` (as many as wait).")
    ] = None,
    full_sizes: Annotated[
        bool, Parameter(negative="", help="`backlog` with up to 10,000,000 runs: an hour, and some 60 GB below --work.")
    ] = False,
    peers: Annotated[
        tuple[str, ...],
        Parameter(negative="", consume_multiple=False, help="Ask the `peers_…` questions of these only."),
    ] = (),
    compare: Annotated[
        tuple[Path, Path] | None,
        Parameter(
            negative="",
            help="Show what changed from one bench.json to another; exit code 1 if anything regressed or failed.",
        ),
    ] = None,
    list_questions: Annotated[bool, Parameter(name="--list", negative="", help="Name the questions.")] = False,
) -> int:
    """Measure what this system can do on this machine, beside what the machine itself and others can do.

    Without QUESTION, all of them are asked. Exit code 1 if one could not be answered, or a margin of --quick broke.
    """
    console = Console(width=None if sys.stdout.isatty() else 140)
    if list_questions:
        for question in QUESTIONS:
            console.print(f"{question.name:18} {question.title}", highlight=False, markup=False)
        return 0
    if compare is not None:
        return _compare(console, *compare)
    known = {question.name: question for question in QUESTIONS}
    unknown = [name for name in questions if name not in known]
    strangers = [name for name in peers if name not in {peer.name for peer in (*PEERS, *ORCHESTRATORS)}]
    if unknown or (runs is not None and runs < 1):
        sys.stderr.write(f"dts-bench: {'unknown: ' + ', '.join(unknown) if unknown else '--runs must be at least 1'}\n")
        sys.stderr.write(f"questions: {', '.join(known)}\n")
        return 2
    chosen = [known[name] for name in questions] or list(QUESTIONS)
    if strangers:
        sys.stderr.write(f"dts-bench: unknown: {', '.join(strangers)}\n")
        sys.stderr.write(f"peers: {', '.join(peer.name for peer in (*PEERS, *ORCHESTRATORS))}\n")
        return 2
    with _directory(work) as directory:
        settings = Bench(directory, quick=quick, pending=pending, history=history, full_sizes=full_sizes, peers=peers)
        ask = partial(run, console, chosen, settings, out, runs=runs or (1 if quick else 5))
        report = anyio.run(ask)
    console.print(f"{out / 'bench.md'}, {out / 'bench.json'}", style="dim", highlight=False)
    broken = [m.name for a in report.answers for m in a.measurements if quick and m.keeps(m.margin) is False]
    return 1 if broken or any(answer.error for answer in report.answers) else 0


def _compare(console: Console, first: Path, second: Path) -> int:
    try:
        reports = reporting.read(first), reporting.read(second)
    except (OSError, msgspec.DecodeError) as error:
        sys.stderr.write(f"dts-bench: {error}\n")
        return 2
    changes, failed = comparing.compare(*reports), comparing.unanswered(*reports)
    comparing.show(console, changes, failed)
    return 1 if failed or comparing.regressions(changes) else 0


@contextmanager
def _directory(parent: Path | None) -> Iterator[Path]:
    """Make a private directory that tasks and servers can pass through as other users; remove it at the end."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="dts-bench-", dir=parent)).resolve()
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    """Run the command line as this process. Asked to stop in either way, it stops the systems that it has started."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in its background
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        sys.exit(app())
    except KeyboardInterrupt:
        sys.exit(130)
