"""Asks questions round by round, and keeps quiet while something is being measured."""

from __future__ import annotations

import traceback
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import machine, report
from bench.model import Answer, Report, Sample, collect
from bench.question import Bench, Question


async def run(console: Console, questions: list[type[Question]], bench: Bench, out: Path, *, runs: int) -> Report:
    """Answer every question with `runs` rounds. One that fails says so in its answer; the others go on.

    What is known so far is written to `out` after every question, so that stopping early loses only the current one.
    """
    facts = await machine.describe(bench.work, bench.programs)
    started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    findings = Report(
        started_at=started, quick=bench.quick, runs=runs, machine=facts, settings=bench.settings, answers=[]
    )
    # No automatic refresh: a progress bar that redraws itself would run on the cores that are being measured.
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        auto_refresh=False,
    )
    with progress:
        whole = progress.add_task("questions", total=len(questions))
        for kind in questions:
            answer = await _answer(kind(bench), runs, progress)
            findings.answers.append(answer)
            await anyio.to_thread.run_sync(report.write, findings, out)
            report.show(progress.console, answer, quick=bench.quick)
            progress.advance(whole)
            progress.refresh()
    return findings


async def _answer(question: Question, runs: int, progress: Progress) -> Answer:
    begin = anyio.current_time()
    rounds: list[list[Sample]] = []
    error = None
    bar = progress.add_task(f"  {question.name}", total=runs)
    progress.refresh()
    try:
        async with AsyncExitStack() as stack:
            await question.prepare(stack)
            for question.round in range(runs):
                rounds.append(await question.ask())
                progress.advance(bar)
                progress.refresh()
    except Exception as failure:  # noqa: BLE001 - recorded as the answer; the other questions are still worth asking
        error = f"round {len(rounds) + 1}: {type(failure).__name__}: {failure}"
        progress.console.print("".join(traceback.format_exception(failure)), style="dim", markup=False, highlight=False)
    progress.remove_task(bar)
    return Answer(
        question=question.name,
        title=question.title,
        about=question.about(),
        measurements=collect(rounds),
        notes=question.notes,
        seconds=anyio.current_time() - begin,
        error=error,
    )
