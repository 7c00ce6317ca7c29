"""
Draw the container's life cycle from the machine itself, so that the picture cannot be wrong.

Writes lifecycle.dot and, by Graphviz's C{dot}, lifecycle.svg beside this file; with C{--check}
writes nothing, and exits with status 1 when the lifecycle.dot that is there is not the machine's.
"""

from __future__ import annotations

from chanproxy.container.lifecycle import LATE, machine
from docs.drawing import draw


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


if __name__ == "__main__":
    draw("lifecycle", dotText(), "the machine of the life cycle")
