"""
Draw the two ways, for the first page: by its own sockets, and by channels.

C{python -m docs.draw_ways} writes ways-light.svg and ways-dark.svg beside this file, one for each
of the site's looks; with C{--check} it writes nothing, and exits with status 1 when one that is
there is another.  Narrow, with large letters: it is to be read on a phone, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

from attrs import frozen

WIDTH, HEIGHT = 460, 392


@frozen
class Look:
    """
    Colours, as SVG has them.

    @ivar ink: letters and lines.
    @ivar faint: letters that say less.
    @ivar side: a peer.
    @ivar ours: chanproxy.
    @ivar asleep: a container.
    """

    ink: str
    faint: str
    side: str
    ours: str
    asleep: str


LOOKS = {
    "light": Look("#1b1f24", "#4a525c", "#e6ebf1", "#ffd8a8", "#cfe3fa"),
    "dark": Look("#e8ecf1", "#b4bcc6", "#39414b", "#7a4a12", "#1f4a78"),
}


def _box(left: int, top: int, words: tuple[str, str], fill: str) -> Iterator[str]:
    """A box that is 120 wide and 56 high, with a name and what it does."""
    yield f'<rect x="{left}" y="{top}" width="120" height="56" rx="8" class="box" fill="{fill}"/>'
    yield f'<text x="{left + 60}" y="{top + 24}" class="name">{escape(words[0])}</text>'
    yield f'<text x="{left + 60}" y="{top + 44}" class="small">{escape(words[1])}</text>'


def _arrow(path: str, kind: str = "way") -> str:
    """A line with a head."""
    return f'<path d="{path}" class="{kind}" marker-end="url(#head)"/>'


def svgText(look: Look) -> str:
    """The picture; the same text for the same look."""
    style = (
        f"text{{font-family:sans-serif;fill:{look.ink};text-anchor:middle}}"
        ".title{font-size:17px;font-weight:bold;text-anchor:start}"
        f".name{{font-size:16px}}.small{{font-size:14px;fill:{look.faint}}}.left{{text-anchor:start}}"
        f".box,.way,.aside{{stroke:{look.ink};stroke-width:1.5}}.way,.aside{{fill:none}}"
        f".way{{stroke-width:2.5}}.aside{{stroke-dasharray:5 4}}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}">',
            f"<style>{style}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
            'markerHeight="8" orient="auto-start-reverse" markerUnits="userSpaceOnUse">'
            f'<path d="M0 0L8 4L0 8z" fill="{look.ink}"/></marker></defs>',
            '<text x="10" y="22" class="title">By its own sockets: nothing in the path</text>',
            *_box(10, 40, ("peer", "any client"), look.side),
            *_box(330, 40, ("container", "sleeps if idle"), look.asleep),
            '<path d="M132 68H328" class="way" marker-start="url(#head)" marker-end="url(#head)"/>',
            '<text x="230" y="60" class="small">every byte, as ever</text>',
            *_box(170, 136, ("chanproxy", "beside it"), look.ours),
            _arrow("M290 164H390V100", "aside"),
            '<text x="398" y="134" class="small left">freezes,</text>',
            '<text x="398" y="152" class="small left">thaws</text>',
            '<text x="10" y="160" class="small left">waits for what its</text>',
            '<text x="10" y="178" class="small left">threads wait for</text>',
            '<text x="10" y="240" class="title">By channels: chanproxy between</text>',
            *_box(10, 258, ("peer", "any client"), look.side),
            *_box(170, 258, ("chanproxy", "counts each"), look.ours),
            *_box(330, 258, ("container", "sleeps if idle"), look.asleep),
            '<path d="M132 286H168" class="way" marker-start="url(#head)" '
            'marker-end="url(#head)"/>',
            '<path d="M292 286H328" class="way" marker-start="url(#head)" '
            'marker-end="url(#head)"/>',
            _arrow("M230 316V346H390V318", "aside"),
            '<text x="310" y="366" class="small">freezes when all are handled,</text>',
            '<text x="310" y="382" class="small">thaws for the next message</text>',
            "</svg>",
            "",
        ]
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Draw the two ways.")
    parser.add_argument("--check", action="store_true", help="only compare the files")
    parser.add_argument("--directory", type=Path, default=Path(__file__).resolve().parent)
    options = parser.parse_args()
    for name, look in LOOKS.items():
        file, text = options.directory / f"ways-{name}.svg", svgText(look)
        if not options.check:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            sys.exit(f"{file.name} is not what draw_ways.py draws; run python -m docs.draw_ways")


if __name__ == "__main__":
    main()
