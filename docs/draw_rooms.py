"""
Draw the rooms of the package from its imports, so that the picture cannot be wrong.

C{python -m docs.draw_rooms} writes rooms.dot and, by Graphviz's C{dot}, rooms.svg beside this file;
with C{--check} it writes nothing, and exits with status 1 when the rooms.dot that is there is not
what the imports say.
"""

from __future__ import annotations

from docs.drawing import draw
from support.rooms import used


def _below(room: str, uses: dict[str, set[str]]) -> set[str]:
    """All that a room uses by way of others."""
    return {each for other in uses[room] for each in uses[other] | _below(other, uses)}


def dotText() -> str:
    """The rooms in the DOT language; the same text for the same imports."""
    uses = used()
    lines = [
        "digraph rooms {",
        '    node [shape=box, style=rounded, fontname="sans-serif"];',
        *(f"    {room};" for room in sorted(uses)),
    ]
    for room in sorted(uses):
        # What is reached by way of another room goes without a line of its own.
        lines += [f"    {room} -> {other};" for other in sorted(uses[room] - _below(room, uses))]
    return "\n".join([*lines, "}", ""])


if __name__ == "__main__":
    draw("rooms", dotText(), "the imports of the package")
