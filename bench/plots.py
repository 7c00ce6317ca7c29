"""
Plots as SVG: panels of bars with whiskers, and charts of lines over a logarithmic axis.

Knows nothing of what is plotted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from attrs import frozen

COLOURS = {
    "no proxy": "#9aa0a6",
    "chanproxy": "#c2410c",
    "C, batches": "#1e3a8a",
    "C, one packet a call": "#3b82f6",
    "C, read and write": "#0e7490",
    "C, splice": "#22b8cf",
    "socat": "#15803d",
    "haproxy": "#7c3aed",
    "systemd-socket-proxyd": "#b45f9b",
}
OTHER = "#555555"

WIDTH = 460
MARGIN = 24
NAMES = 150
VALUES = 64
ROW = 24
GAP = 36
TITLE = 26
AXIS = 40


@frozen
class Bar:
    """One bar, and how far its values spread."""

    name: str
    value: float
    low: float
    high: float


@frozen
class Panel:
    """Bars of one scale."""

    title: str
    unit: str
    bars: Sequence[Bar]


@frozen
class Line:
    """Points in order of C{x}."""

    name: str
    points: Sequence[tuple[float, float]]


@frozen
class Chart:
    """Lines over one logarithmic axis."""

    title: str
    xTitle: str
    unit: str
    lines: Sequence[Line]


def ticks(most: float, count: int = 4) -> list[float]:
    """Round numbers from 0 to at least C{most}."""
    if most <= 0:
        return [0, 1]
    rough = most / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]


def short(value: float) -> str:
    """Three digits are enough."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


GRID = 'stroke="#d7dade" stroke-width="1"'
WHISKER = 'stroke="#202124" stroke-width="1.2"'


def _whole(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}" '
            'font-family="system-ui, sans-serif" font-size="12" fill="#202124">',
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
            _text(MARGIN, 28, title, 'font-size="16" font-weight="600"'),
            *parts,
            "</svg>",
            "",
        ]
    )


def _panel(panel: Panel, left: float, top: float) -> list[str]:
    marks = ticks(max(bar.high for bar in panel.bars))
    begin = left + NAMES
    length = WIDTH - NAMES - VALUES
    scale = length / marks[-1]
    bottom = top + TITLE + ROW * len(panel.bars)
    parts = [_text(left, top + 10, panel.title, 'font-weight="600"')]
    for mark in marks:
        x = begin + mark * scale
        parts.append(_line(x, top + TITLE - 4, x, bottom, GRID))
        parts.append(_text(x, bottom + 14, short(mark), 'text-anchor="middle" fill="#5f6368"'))
    unit = 'text-anchor="middle" fill="#5f6368"'
    parts.append(_text(begin + length / 2, bottom + 30, panel.unit, unit))
    for number, bar in enumerate(panel.bars):
        y = top + TITLE + ROW * number
        middle = y + ROW / 2 - 2
        bold = ' font-weight="600"' if bar.name == "chanproxy" else ""
        parts.append(_text(begin - 8, middle + 4, bar.name, f'text-anchor="end"{bold}'))
        parts.append(
            f'<rect x="{begin:.1f}" y="{y + 2:.1f}" width="{bar.value * scale:.1f}" '
            f'height="{ROW - 8}" rx="2" fill="{COLOURS.get(bar.name, OTHER)}"/>'
        )
        low, high = begin + bar.low * scale, begin + bar.high * scale
        parts.append(_line(low, middle, high, middle, WHISKER))
        for x in (low, high):
            parts.append(_line(x, middle - 4, x, middle + 4, WHISKER))
        parts.append(_text(begin + length + 10, middle + 4, short(bar.value), bold))
    return parts


def bars(title: str, note: str, panels: Sequence[Panel], columns: int = 2) -> str:
    """
    An SVG of panels side by side, each with its own scale from zero.

    @param note: what the whiskers are.
    """
    parts = [_text(MARGIN, 46, note, 'fill="#5f6368"')]
    y: float = 66
    for begin in range(0, len(panels), columns):
        row = panels[begin : begin + columns]
        for number, panel in enumerate(row):
            parts += _panel(panel, MARGIN + number * (WIDTH + GAP), y)
        y += TITLE + ROW * max(len(panel.bars) for panel in row) + AXIS + GAP / 2
    wide = min(columns, len(panels))
    return _whole(2 * MARGIN + wide * WIDTH + (wide - 1) * GAP, y, title, parts)


HEIGHT = 240
LEFT = 56


def _chart(chart: Chart, left: float, top: float) -> list[str]:
    points = [point for line in chart.lines for point in line.points]
    xs = sorted({x for x, _ in points})
    marks = ticks(max(y for _, y in points))
    begin, length = left + LEFT, WIDTH - LEFT - 16
    high, bottom = top + TITLE, top + TITLE + HEIGHT
    first, last = math.log(xs[0]), math.log(max(xs[-1], xs[0] * 10))

    def across(x: float) -> float:
        return begin + 10 + (length - 20) * (math.log(x) - first) / (last - first)

    def down(y: float) -> float:
        return bottom - (bottom - high) * y / marks[-1]

    grey = 'fill="#5f6368"'
    parts = [_text(left, top + 10, chart.title, 'font-weight="600"')]
    for mark in marks:
        parts.append(_line(begin, down(mark), begin + length, down(mark), GRID))
        parts.append(_text(begin - 6, down(mark) + 4, short(mark), f'text-anchor="end" {grey}'))
    for x in xs:
        parts.append(_text(across(x), bottom + 16, f"{x:,.0f}", f'text-anchor="middle" {grey}'))
    middle = f'text-anchor="middle" {grey}'
    parts.append(_text(begin + length / 2, bottom + 33, chart.xTitle, middle))
    x, y = left + 12, (high + bottom) / 2
    parts.append(_text(x, y, chart.unit, f'{middle} transform="rotate(-90 {x:.1f} {y:.1f})"'))
    for line in chart.lines:
        colour = COLOURS.get(line.name, OTHER)
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in line.points)
        width = 3 if line.name == "chanproxy" else 1.8
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
        )
        for px, py in line.points:
            parts.append(
                f'<circle cx="{across(px):.1f}" cy="{down(py):.1f}" r="3.5" fill="{colour}"/>'
            )
    return parts


def lines(title: str, charts: Sequence[Chart], columns: int = 2) -> str:
    """An SVG of charts side by side, with one legend."""
    names = list(dict.fromkeys(line.name for chart in charts for line in chart.lines))
    wide = min(columns, len(charts))
    width = 2 * MARGIN + wide * WIDTH + (wide - 1) * GAP
    parts = []
    x, y = float(MARGIN), 52.0
    for name in names:
        needed = 30 + 7 * len(name)
        if x + needed > width - MARGIN:
            x, y = MARGIN, y + 20
        parts.append(
            _line(x, y - 4, x + 18, y - 4, f'stroke="{COLOURS.get(name, OTHER)}" stroke-width="3"')
        )
        parts.append(_text(x + 24, y, name))
        x += needed + 12
    y += 24
    for begin in range(0, len(charts), columns):
        for number, chart in enumerate(charts[begin : begin + columns]):
            parts += _chart(chart, MARGIN + number * (WIDTH + GAP), y)
        y += TITLE + HEIGHT + AXIS + GAP / 2
    return _whole(width, y, title, parts)
