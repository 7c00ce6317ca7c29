"""
What became of programs side by side, told: to who has to find a fault, and in the docs' table.

In the table only the columns that are measured are written here; the last one is written by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from support.places import DOCS
from tests.whole.beside.compare import Event, paired
from tests.whole.beside.twice import Outcome, Program

PAGE = DOCS / "programs.md"


def rows(page: Path) -> dict[str, list[str]]:
    """The cells of its tables' rows, by the first of them."""
    found = {}
    for line in page.read_text().splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            found[cells[0]] = cells
    return found


def update(page: Path, outcomes: Sequence[tuple[type[Program], Outcome]]) -> None:
    """Write what was measured into the rows of these programs."""
    measured = {kind.name: _measured(kind, outcome) for kind, outcome in outcomes}
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines):
        name = line.strip("| ").split(" | ")[0]
        if line.startswith("| ") and name in measured:
            by_hand = rows(page)[name][-1]
            lines[number] = f"| {' | '.join([*measured[name], by_hand])} |"
    page.write_text("\n".join(lines) + "\n")


def _measured(kind: type[Program], outcome: Outcome) -> list[str]:
    share = outcome.sleep.share(outcome.asleep.idles)
    slept = "unknown" if share is None else f"{100 * share:.1f} %"
    return [kind.name, kind.tried, _late(outcome, False), _late(outcome, True), slept]


def _late(outcome: Outcome, hidden: bool) -> str:
    """The most that something was later than in the run alone, and how much was lost."""
    pairs = [
        (first, second)
        for first, second in paired(outcome.alone.events, outcome.asleep.events)
        if first.hidden == hidden
    ]
    if not pairs:
        return "none"
    times = [
        second.late - max(0.0, first.late)
        for first, second in pairs
        if second is not None and first.at is not None and second.at is not None
    ]
    said = [f"{max(0.0, *times):.2f} s"] if times else []
    if lost := len(pairs) - len(times):
        said.append(f"{lost} of {len(pairs)} never")
    if wrong := sum(
        bool(second and second.at is not None and second.wrong(outcome.stall))
        for _, second in pairs
    ):
        said.append(f"{wrong} of {len(pairs)} wrong")
    return ", ".join(said)


def story(outcome: Outcome) -> str:
    """All that is known of one."""
    described = outcome.described
    lines = [
        f"{key}: {described[key]}" for key in ("why_awake", "passed_over", "statistics", "events")
    ]
    lines.append(f"this process came {outcome.stall:.3f} s late")
    lines += [
        f"{number}. {first.what}: {_told(first)} alone, {_told(second)} asleep"
        for number, (first, second) in enumerate(
            paired(outcome.alone.events, outcome.asleep.events)
        )
    ]
    return "\n".join(lines)


def _told(event: Event | None) -> str:
    if event is None:
        return "-"
    return f"{event.late:+.3f} s" if event.at is not None else "never"
