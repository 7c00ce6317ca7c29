"""What operators see: durations, shares, local times, keys; and rows that fit."""

from __future__ import annotations

import time

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from chanproxy.commands import showing
from chanproxy.commands.events import Event, Ring, told
from chanproxy.commands.showing import Moment, cut, duration, percent, wrapped
from chanproxy.commands.terminal import KEYS, splitKeys


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 ms"),
        (0.0129, "12 ms"),
        (0.9999, "999 ms"),
        (7.59, "7.5 s"),
        (9.99, "9.9 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (192, "3 min 12 s"),
        (3599.9, "59 min 59 s"),
        (7200, "2 h"),
        (7799, "2 h 9 min"),
        (86399, "23 h 59 min"),
        (4 * 86400 + 11 * 3600 + 59, "4 d 11 h"),
        (10 * 365 * 86400, "3650 d"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    """Two units at the most, and never more than it was."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.004, "<1 %"), (0.42, "42 %"), (0.991, "99 %"), (0.999, ">99 %"), (1, "100 %")],
)
def test_percent(share: float, text: str) -> None:
    """Nearly nothing is not nothing, nearly all is not all."""
    assert percent(share) == text


def test_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instants of the manager's clock as times of day; with the date, if it is another day."""
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        moment = Moment(5_000_000_000, 1_000_000.0)
        assert moment.unixOf(3_500_000_000) == 999_998.5
        assert moment.ago(3_500_000_000) == 1.5
        assert moment.local(1_000_000.0) == "15:46:40"
        assert moment.local(1_000_000.0 - 86400) == "1970-01-11 15:46:40"
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text(max_size=50), st.integers(1, 60))
def test_cut(text: str, columns: int) -> None:
    """Never wider than there is room, and as it was if it fits."""
    from rich.cells import cell_len

    shown = cut(text, columns)
    assert cell_len(shown) <= columns
    assert shown == text or cell_len(text) > columns


def test_wrapped() -> None:
    """Lines of a sentence begin where it begins, and a little further in."""
    text = "  " + "word " * 20
    lines = wrapped(text.rstrip(), 30)
    assert all(len(line) <= 30 for line in lines)
    assert lines[0].startswith("  word")
    assert all(line.startswith("    word") for line in lines[1:])
    assert wrapped(text, None) == [text]


def test_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe rows are whole; in a terminal they end with its last column."""
    rows = [("a", "1 s", "x" * 100), ("longer", "100 s", "two\nlines, \x1b[31mred")]
    head = ("NAME", "FOR", "WHY")
    for columns in (None, 40):
        monkeypatch.setattr(showing, "width", lambda columns=columns: columns)
        with CliRunner().isolation() as (output, _, _):
            showing.table(head, rows, right=("FOR",))
            lines = output.getvalue().decode().splitlines()
        assert len(lines) == 3
        assert lines[0] == "NAME      FOR  WHY"
        assert lines[2].startswith("longer  100 s  two\\nlines, \\x1b")
        if columns is None:
            assert lines[1] == f"a         1 s  {'x' * 100}"
        else:
            assert max(map(len, lines)) == 40
            assert lines[1].endswith("x…")


def test_keys() -> None:
    """What terminals send for keys, one after the other; what nobody knows is left out."""
    assert splitKeys(b"sj\x1b[A\x1bOB\r\x1b[5~q\x1b") == [
        *("s", "j", "up", "down", "enter", "page up", "q", "escape")
    ]
    assert splitKeys(b"\x1b[1;5Cx\x00\xc3\xa4y\x1b[200~") == ["x", "y"]


@given(st.binary(max_size=20))
def test_anyKeys(data: bytes) -> None:
    """Whatever comes, there is an end of it, and all of it are keys."""
    assert all(key in KEYS.values() or len(key) == 1 for key in splitKeys(data))


def described(state: str, *events: tuple[int, str, str], since: int = 0) -> dict[str, object]:
    """What a ring needs of a description."""
    return {
        "now": 10_000,
        "state": state,
        "statistics": {
            "attempt_count": sum(kind == "attempt" for _, kind, _ in events),
            "counted_since": since,
        },
        "events": [{"at": at, "kind": kind, "reason": reason} for at, kind, reason in events],
    }


def kinds(events: list[Event]) -> list[tuple[str, int]]:
    return [(event.kind, event.at) for event in events]


def test_ring() -> None:
    """Each event is told once, and what is not over yet when it is."""
    ring = Ring("web")
    first = ((100, "attempt", ""), (200, "resume", "bell"))
    assert kinds(list(ring.news(described("awake", *first)))) == [("attempt", 100), ("resume", 200)]
    assert not ring.isBehind({"attempt_count": 1, "last_wake": 200})
    assert ring.isBehind({"attempt_count": 2, "last_wake": 200})
    pending = (*first, (300, "attempt", ""))
    assert list(ring.news(described("suspending", *pending))) == []
    assert ring.isBehind({"attempt_count": 2, "last_wake": 200})
    assert kinds(list(ring.news(described("asleep", *pending)))) == [("attempt", 300)]
    (woken,) = ring.news(described("awake", *pending, (2_500_000_300, "resume", "tea")))
    assert woken.words() == "wakes after 2.5 s: tea"
    # More than the service keeps.
    later = described("awake", (10**10, "attempt", ""), (10**10 + 1, "fail", "lock"))
    assert [event.kind for event in ring.news(later)] == ["lost", "attempt", "fail"]
    # Another service has forgotten nothing that we know of.
    ring.restart()
    other = described("asleep", (10**11, "attempt", ""), since=10**11 - 1)
    assert [event.kind for event in ring.news(other)] == ["attempt"]


def test_told() -> None:
    """For people an attempt that failed is its failure; whatever others do meanwhile."""
    events = [
        Event(name, at, float(at), kind, "")
        for name, at, kind in [
            *(("a", 1, "attempt"), ("b", 2, "attempt"), ("a", 3, "fail")),
            *(("b", 4, "resume"), ("a", 5, "attempt")),
        ]
    ]
    assert [(event.name, event.kind) for event in told(events)] == [
        *(("b", "attempt"), ("a", "fail"), ("b", "resume"), ("a", "attempt"))
    ]
