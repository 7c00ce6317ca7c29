"""
Draw the container's life cycle from the machine itself, so that the picture cannot be wrong.

Writes lifecycle.dot and, by Graphviz's C{dot}, lifecycle.svg beside this file; with C{--check}
writes nothing, and exits with status 1 when the lifecycle.dot that is there is not the machine's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from chanproxy.container.lifecycle import LATE, machine

HERE = Path(__file__).resolve().parent


def dotText() -> str:
    """The machine in the DOT language; the same text for the same machine."""
    # Its asDigraph() needs one more package, whose only use here would be to join strings.
    automaton = machine.__automat_automaton__
    transitions = sorted(
        (begin.name, name, end.name) for begin, name, end, _ in automaton.allTransitions()
    )
    states = [automaton.initialState.name]
    for state in states:
        # Grows while we walk: breadth first, so that the picture reads in the order of events.
        for begin, _, end in transitions:
            if begin == state and end not in states:
                states.append(end)
    lines = [
        "digraph lifecycle {",
        "    rankdir=LR;",
        '    node [shape=box, style=rounded, fontname="sans-serif"];',
        '    edge [fontname="sans-serif", fontsize=11];',
        f"    {states[0]} [penwidth=2];",
        *(f"    {state};" for state in states[1:]),
    ]
    for state in states:
        late = LATE[state].split()
        for begin, name, end in transitions:
            if begin == state and not (begin == end and name in late):
                lines.append(f'    {begin} -> {end} [label="{name}"];')
        shown = "\\n".join(["late:", *late])
        lines.append(f'    {state} -> {state} [label="{shown}", style=dashed, color=gray];')
    return "\n".join([*lines, "}", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the container's life cycle.")
    parser.add_argument("--check", action="store_true", help="only compare lifecycle.dot")
    check: bool = parser.parse_args().check
    file = HERE / "lifecycle.dot"
    text = dotText()
    if check:
        if not file.exists() or file.read_text() != text:
            sys.exit(f"{file.name} does not show the machine of the life cycle; run this script")
        return
    file.write_text(text)
    try:
        subprocess.run(["dot", "-Tsvg", "-o", HERE / "lifecycle.svg", file], check=True)
    except FileNotFoundError:
        sys.exit("there is no program dot; install graphviz")


if __name__ == "__main__":
    main()
