"""Plots, as PNG and SVG: one figure per question and unit, bars of medians with the spread over the rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.model import Measurement, number

FORMATS = ("png", "svg")

_WIDTH, _ROW, _FRAME = 9.0, 0.32, 1.1  # inches; the frame holds title, axis and legend
_INK, _FAINT, _FILL, _LIMIT = "#1f2933", "#9aa5b1", "#4c78a8", "#e45756"
_STYLE = {
    "svg.hashsalt": "bench",
    "svg.fonttype": "none",
    "font.size": 8,
}  # text stays text; the same data, the same file


def save(title: str, measurements: Sequence[Measurement], path: Path) -> None:
    """Write a plot of measurements of one unit beside `path`, once with each suffix of `FORMATS`."""
    with mpl.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 8}):  # same data, same file
        figure = _figure(title, measurements)
        for suffix in FORMATS:
            # Without a date: a report that did not change does not change its plots.
            metadata = {"Date": None} if suffix == "svg" else None
            figure.savefig(path.with_suffix(f".{suffix}"), dpi=150, metadata=metadata)


def _figure(title: str, measurements: Sequence[Measurement]) -> Figure:
    """Return horizontal bars, the first on top. A red tick is what a bar was held against in the same rounds."""
    figure = Figure(figsize=(_WIDTH, _FRAME + _ROW * len(measurements)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(measurements))
    medians = [m.median for m in measurements]
    around = [[m.median - m.low for m in measurements], [m.high - m.median for m in measurements]]
    axes.barh(places, medians, height=0.6, color=_FILL, xerr=around, error_kw={"ecolor": _INK, "elinewidth": 1})
    for place, m in zip(places, measurements, strict=True):
        if m.against:
            axes.vlines(sorted(m.against)[len(m.against) // 2], place - 0.4, place + 0.4, color=_LIMIT, linewidth=2)
        axes.annotate(
            number(m.median),
            (max([m.high, *m.against]), place),
            xytext=(6, 0),
            textcoords="offset points",
            verticalalignment="center",
            color=_INK,
        )
    axes.set_yticks(places, [_plain(m.name) for m in measurements])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    held = next((m.against_name for m in measurements if m.against), None)
    unit = measurements[0].unit if measurements else ""
    legend = f"{unit}, median and range" + (f"; red: {held}" if held else "")
    axes.set_xlabel(_plain(legend), color=_FAINT)
    axes.set_title(_plain(title), loc="left", fontweight="bold", color=_INK)
    return figure


def _plain(text: str) -> str:
    """Return text in which nothing is taken for a formula."""
    return text.replace("$", r"\$")
