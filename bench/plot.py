"""Plots as SVG, written by hand: one figure per question and unit, bars of medians with the spread over the rounds."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench.model import Measurement, number

_LABEL, _BAR, _NUMBER = 300, 420, 110  # widths in pixels
_ROW, _TOP = 26, 48
_INK, _FAINT, _FILL, _LIMIT = "#1f2933", "#9aa5b1", "#4c78a8", "#e45756"


def bars(title: str, measurements: Sequence[Measurement]) -> str:
    """Return an SVG of measurements of one unit. A red tick is what a bar was held against in the same rounds."""
    top = max((max([m.high, *m.against]) for m in measurements), default=0) or 1
    width, height = _LABEL + _BAR + _NUMBER, _TOP + _ROW * len(measurements) + 16
    unit = measurements[0].unit if measurements else ""
    rows = [_bar(m, _TOP + _ROW * index, _BAR / top) for index, m in enumerate(measurements)]
    held = next((m.against_name for m in measurements if m.against), None)
    legend = f"{unit}, median and range" + (f"; red: {held}" if held else "")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="system-ui, sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="white"/>'
        f'<text x="8" y="20" font-size="14" font-weight="bold" fill="{_INK}">{escape(title)}</text>'
        f'<text x="8" y="37" fill="{_FAINT}">{escape(legend)}</text>{"".join(rows)}</svg>\n'
    )


def _bar(m: Measurement, y: float, scale: float) -> str:
    middle = y + _ROW / 2
    parts = [
        f'<text x="{_LABEL - 8}" y="{middle + 4}" text-anchor="end" fill="{_INK}">{escape(m.name)}</text>',
        f'<rect x="{_LABEL}" y="{y + 5}" width="{m.median * scale:.1f}" height="{_ROW - 10}" fill="{_FILL}"/>',
        _line(_LABEL + m.low * scale, middle, _LABEL + m.high * scale, middle, _INK),
    ]
    if m.against:
        x = _LABEL + sorted(m.against)[len(m.against) // 2] * scale
        parts.append(_line(x, y + 2, x, y + _ROW - 2, _LIMIT, 2))
    end = _LABEL + max([m.high, *m.against]) * scale + 6
    parts.append(f'<text x="{end:.1f}" y="{middle + 4}" fill="{_INK}">{number(m.median)}</text>')
    return "".join(parts)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'
