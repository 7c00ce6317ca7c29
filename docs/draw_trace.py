"""
Draw one wake from a trace that C{chanproxy trace} has recorded.

Reads wake.trace.json beside this file, or the file that is given, and writes wake.svg; with
C{--check} writes nothing, and exits with status 1 when the wake.svg that is there is another.
"""

from __future__ import annotations

import argparse
import json
import sys
from html import escape
from pathlib import Path
from typing import Any

from attrs import define

HERE = Path(__file__).resolve().parent

WIDTH, LEFT, RIGHT, ROW, TOP = 900, 130, 20, 24, 46
COLOURS = {
    "loop": "#dfe7ef",
    "wait for messages": "#c3d3e3",
    "forward message": "#7fa8d1",
    "suspend": "#efe3d3",
    "freeze": "#dcc49c",
    "asleep": "#b7b3c9",
    "thaw": "#f0a46b",
}


@define
class Span:
    """A duration, or an instant, which ends as it begins."""

    track: str
    name: str
    begin: float
    end: float
    depth: int
    reason: str = ""


def readSpans(events: list[dict[str, Any]]) -> list[Span]:
    """What happened, with how deep it was nested."""
    spans: list[Span] = []
    stacks: dict[str, list[Span]] = {}
    for event in events:
        if event["ph"] == "M":
            continue
        track = event["args"]["channel"]
        stack = stacks.setdefault(track, [])
        if event["ph"] == "E":
            stack.pop().end = event["ts"]
            continue
        reason = str(event["args"].get("reason", ""))
        span = Span(track, event["name"], event["ts"], event["ts"], len(stack), reason)
        spans.append(span)
        if event["ph"] == "B":
            stack.append(span)
    return spans


def window(spans: list[Span]) -> tuple[list[Span], float, float]:
    """
    The last whole wake: from the message's arrival to the reply's departure.

    @raise ValueError: the trace has none.
    """
    thaws = [s for s in spans if s.name == "thaw" and s.reason and s.end > s.begin]
    for thaw in reversed(thaws):
        channel = [s for s in spans if s.track == thaw.reason]
        before = [s for s in channel if s.name == "remote readable" and s.begin < thaw.end]
        replies = [s for s in channel if s.name == "forward message" and s.begin > thaw.begin]
        if before and replies:
            zero, last = before[-1].begin, max(replies[0].end, thaw.end)
            margin = (last - zero) * 0.12
            tracks = (thaw.track, thaw.reason)
            begin, end = zero - margin, last + margin
            inside = [s for s in spans if s.track in tracks and s.end >= begin and s.begin <= end]
            return inside, zero, last
    raise ValueError("it has no wake by a message that is answered; trace one, and try again")


def svgText(spans: list[Span], zero: float, last: float) -> str:
    """The picture; the same text for the same trace."""
    margin = (last - zero) * 0.12
    begin, end = zero - margin, last + margin

    def x(at: float) -> float:
        inside = min(max(at, begin), end)
        return LEFT + (inside - begin) / (end - begin) * (WIDTH - LEFT - RIGHT)

    parts: list[str] = []
    y = TOP
    for track in sorted({span.track for span in spans}, reverse=True):
        mine = [span for span in spans if span.track == track]
        parts.append(f'<text x="8" y="{y + 16}" class="track">{escape(track)}</text>')
        deepest = max(span.depth for span in mine if span.end > span.begin)
        below = [s for s in mine if s.end == s.begin and begin <= s.begin <= end]
        for span in mine:
            if span.end > span.begin:
                colour, width = COLOURS.get(span.name, "#ddd"), x(span.end) - x(span.begin)
                row = y + span.depth * ROW
                parts.append(
                    f'<rect x="{x(span.begin):.1f}" y="{row}" width="{max(width, 1):.1f}" '
                    f'height="{ROW - 3}" fill="{colour}"><title>{escape(span.name)}</title></rect>'
                )
                if width > 7 * len(span.name):
                    parts.append(
                        f'<text x="{x(span.begin) + 4:.1f}" y="{row + 15}">'
                        f"{escape(span.name)}</text>"
                    )
                elif begin < span.begin and span.end < end:
                    below.append(span)
        y += (deepest + 1) * ROW
        # What has no room for its name is told below, a line each, so that no words meet.
        for span in sorted(below, key=lambda span: span.begin):
            middle, after = x(span.begin), span.begin > begin + 0.6 * (end - begin)
            lasts = f", {span.end - span.begin:.0f} µs long" if span.end > span.begin else ""
            parts.append(
                f'<path d="M{middle:.1f} {y + 4}v{ROW - 8}" class="mark"/>'
                f'<text x="{middle + (-5 if after else 5):.1f}" y="{y + 16}" '
                f'text-anchor="{"end" if after else "start"}">'
                f"{escape(span.name)} +{span.begin - zero:.0f} µs{lasts}</text>"
            )
            y += ROW - 6
        y += ROW
    axis = []
    step = next(
        s for s in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10**6) if last - zero < 9 * s
    )
    for tick in range(0, int(last - zero) + step, step):
        if zero + tick <= end:
            axis.append(
                f'<path d="M{x(zero + tick):.1f} 28V{y}" class="axis"/>'
                f'<text x="{x(zero + tick):.1f}" y="22" text-anchor="middle">{tick} µs</text>'
            )
    style = (
        "text{font:12px sans-serif;fill:#222}.track{font-weight:bold}"
        ".mark{stroke:#b02a1e;stroke-width:2}.axis{stroke:#ccc;stroke-width:1}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}">',
            f'<style>{style}</style><rect width="{WIDTH}" height="{y}" fill="#fff"/>',
            *axis,
            *parts,
            "</svg>",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw one wake from a trace.")
    parser.add_argument("trace", nargs="?", type=Path, default=HERE / "wake.trace.json")
    parser.add_argument("--check", action="store_true", help="only compare wake.svg")
    options = parser.parse_args()
    try:
        text = svgText(*window(readSpans(json.loads(options.trace.read_text()))))
    except (OSError, ValueError) as error:
        sys.exit(f"{options.trace}: {error}")
    file = HERE / "wake.svg"
    if not options.check:
        file.write_text(text)
    elif not file.exists() or file.read_text() != text:
        sys.exit(f"{file.name} does not show {options.trace.name}; run this script")


if __name__ == "__main__":
    main()
