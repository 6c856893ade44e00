"""A report, as a table on the terminal and as files: JSON to compare with, Markdown to read, plots to look at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.model import Answer, Measurement, Report, number, times
from bench.plot import save

_VERDICT = {True: "✓", False: "✗", None: ""}


def write(report: Report, directory: Path) -> None:
    """Write `bench.json`, `bench.md` and `plots/` below `directory`."""
    (directory / "plots").mkdir(parents=True, exist_ok=True)
    data, text = directory / "bench.json", directory / "bench.md"
    data.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    for answer in report.answers:
        for name, measurements in _figures(answer):
            save(answer.title, measurements, directory / "plots" / name)
    text.write_text(markdown(report), encoding="utf-8")


def read(path: Path) -> Report:
    """Return a report from its JSON file. Raises OSError, msgspec.DecodeError."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def cells(m: Measurement, *, quick: bool) -> list[str]:
    """Return one measurement as a row: name, median, range, what it is held against, ratio, bound and verdict."""
    bound = m.margin if quick else m.reach
    against = f"{m.against_name}: {number(sorted(m.against)[len(m.against) // 2])}" if m.against else ""
    return [
        m.name,
        f"{number(m.median)} {m.unit}",
        f"{number(m.low)} … {number(m.high)}",
        against,
        "" if m.ratio is None else times(m.ratio),
        "" if bound is None else f"{bound.text(m.unit)} {_VERDICT[m.keeps(bound)]}",
    ]


def show(console: Console, answer: Answer, *, quick: bool) -> None:
    """Print the table of one question."""
    table = Table(title=answer.title, title_justify="left", title_style="bold", expand=False)
    for heading in ("", "median", "range", "held against", "ratio", "margin" if quick else "reach"):
        table.add_column(heading, justify="left" if heading in {"", "held against"} else "right")
    for measurement in answer.measurements:
        row = [escape(cell) for cell in cells(measurement, quick=quick)]
        kept = measurement.keeps(measurement.margin if quick else measurement.reach)
        table.add_row(*row, style="red" if kept is False else None)
    console.print(table if answer.measurements else table.title, highlight=False)
    for note in answer.notes:
        console.print(f"  {note}", style="dim", markup=False)
    if answer.error:
        console.print(f"  {answer.error}", style="bold red", markup=False)


def markdown(report: Report) -> str:
    """Return the whole report as Markdown."""
    kind = (
        "quick run: sizes too small for figures, only ratios within wide margins are asserted"
        if report.quick
        else "full run"
    )
    lines = [
        "# Benchmark",
        "",
        f"{report.started_at}, {kind}; median and range of {report.runs} rounds.",
        "Compare ratios, which were measured in the same round; absolute figures belong to this machine.",
        "",
        *_facts("Machine", report.machine),
        *_facts("Settings", report.settings),
    ]
    for answer in report.answers:
        lines += _section(answer, quick=report.quick)
    return "\n".join(lines)


def _facts(heading: str, facts: dict[str, str]) -> list[str]:
    return [f"## {heading}", "", "| | |", "|---|---|", *(f"| {k} | {_cell(v)} |" for k, v in facts.items()), ""]


def _section(answer: Answer, *, quick: bool) -> list[str]:
    lines = [f"## {answer.title}", "", answer.about, "", f"(`{answer.question}`, {answer.seconds:.0f} s)", ""]
    if answer.measurements:
        lines += [
            f"| | median | range | held against | ratio | {'margin' if quick else 'reach'} |",
            "|---|---:|---:|---|---:|---:|",
        ]
        lines += ["| " + " | ".join(_cell(cell) for cell in cells(m, quick=quick)) + " |" for m in answer.measurements]
        lines.append("")
    lines += [f"- {note}" for note in answer.notes]
    if answer.error:
        lines += ["", f"**Not answered:** {answer.error}"]
    lines += ["", *(f"![{answer.title}](plots/{name}.svg)" for name, _ in _figures(answer)), ""]
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _figures(answer: Answer) -> Iterator[tuple[str, list[Measurement]]]:
    """Yield a file name without suffix and the measurements of each unit."""
    by_unit = sorted(answer.measurements, key=lambda m: m.unit)
    for unit, measurements in groupby(by_unit, key=lambda m: m.unit):
        slug = re.sub(r"[^a-z0-9]+", "-", unit.lower().replace("%", "percent").replace("µ", "u")).strip("-")
        yield f"{answer.question}-{slug}", list(measurements)
