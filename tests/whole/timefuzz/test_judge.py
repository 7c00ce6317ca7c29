"""That the fuzzer of time judges rightly, and that its scripts are what they should be."""

from __future__ import annotations

import pytest

from tests.whole.timefuzz.judge import Event, Noise, Record, byKind, compare
from tests.whole.timefuzz.scripts import (
    ABSOLUTE,
    ALARMS,
    LOOPS,
    RETRIED,
    TOLD,
    Script,
    script,
    scripts,
)

QUIET = Noise([], [])


def event(
    id: str, due: float, late: float = 0.0, sort: str = "s", again: int = 0, extra: float = 0.0
) -> Event:
    """One event by poll."""
    return Event(id, sort, "poll", due, due + late, again, extra)


def found(without: list[Event], under: list[Event], noise: Noise = QUIET) -> list[str]:
    """What is said of two runs; the second was awake for a while at 1 s."""
    faults = compare("x", Record(tuple(without)), Record(tuple(under), awake=(1.0,)), noise)
    return [f"{fault.what} {fault.kind}" for fault in faults]


def test_same() -> None:
    """Right, and a bit late, is no fault."""
    assert found([event("a.0", 1)], [event("a.0", 5, 0.29)]) == []


def test_missing() -> None:
    """Only the first that is missing of what comes one after the other."""
    ids = ("a.0", "a.1", "b.after0.0", "b.after0.1", "b.after1.0", "c.v0.0.ask", "c.v0.0")
    base = [event(id, number) for number, id in enumerate(ids)]
    assert found(base, []) == ["missing poll"] * 4
    assert found(base, base[1:]) == ["missing poll"]
    # Independent ones, each by itself.
    assert found([event("p0.usr1.0", 1), event("p0.usr1.1", 2)], []) == ["missing poll"] * 2


def test_twiceAndAdded() -> None:
    """What comes too often, or only under chanproxy."""
    one = event("a.0", 1)
    assert found([one], [one, one]) == ["twice a.0"]
    assert found([], [one]) == ["added poll"]


def test_early() -> None:
    """More than 20 ms before its time."""
    assert found([event("a.0", 1)], [event("a.0", 1, -0.019)]) == []
    assert found([event("a.0", 1)], [event("a.0", 1, -0.021)]) == ["early poll"]


def test_late() -> None:
    """More than the bound, beyond how late it was without, and the machine was."""
    assert found([event("a.0", 1)], [event("a.0", 1, 0.31)]) == ["late poll"]
    assert found([event("a.0", 1, 0.2)], [event("a.0", 1, 0.49)]) == []
    noise = Noise([Record((event("z.0", 1.1, 0.2),))], [(9, 5.0)])
    assert found([event("a.0", 1)], [event("a.0", 1, 0.49)], noise) == []
    assert found([event("a.0", 1)], [event("a.0", 1, 0.51)], noise) == ["late poll"]
    noise = Noise([], [(1.2, 0.2)])
    assert found([event("a.0", 1)], [event("a.0", 1, 0.49)], noise) == []


def test_hidden() -> None:
    """As late as the sleep was long, and a breath, and never more than 15 s."""
    for slept, late in ((3, 4), (40, 15)):
        first, ours = event("a.v0.0.ask", 1), event("b.after0.0", 1 + slept, sort="h")
        within = event("b.after0.0", 1 + slept, late + 0.29, sort="h")
        beyond = event("b.after0.0", 1 + slept, late + 0.31, sort="h")
        assert found([first, ours], [first, within]) == []
        assert found([first, ours], [first, beyond]) == ["late poll behind a tick"]


def test_ticks() -> None:
    """Turns of a tick are there only when late, and bounded as what is hidden."""
    first, turn = event("a.v0.0.ask", 1), event("b.turn0", 4, 3, "t")
    assert found([first], [first, turn, turn]) == []
    assert found([first, turn], [first]) == []
    turn = event("b.turn0", 4, 4.4, "t")
    assert found([first], [first, turn]) == ["late poll as a tick"]


def test_begunAnew() -> None:
    """A program that waits anew when interrupted may be late by that, once."""
    base = event("a.0", 1, extra=4)
    assert found([base], [event("a.0", 1, 4.29, again=1, extra=4)]) == []
    assert found([base], [event("a.0", 1, 4.31, again=2, extra=4)]) == ["late poll begun anew"]
    assert found([base], [event("a.0", 1, 0.4, again=0, extra=4)]) == ["late poll begun anew"]


def test_failures() -> None:
    """What went wrong otherwise is a fault, whichever run it was."""
    faults = list(compare("x", Record((), ("a",)), Record((), ("b",)), QUIET))
    assert [fault.text for fault in faults] == ["a", "b"]
    assert byKind(faults).split() == ["1", "failed:", "without", "chanproxy", "1", "failed:"]


def test_sameSeed() -> None:
    """A seed is a script; another seed is another one."""
    assert script(7) == script(7)
    assert len({script(seed).partition("\n")[2] for seed in range(50)}) == 50


def test_allKinds() -> None:
    """Each wait, loop, server and signal is in some script, and each script ends in time."""
    text = "\n".join(script(seed) for seed in range(300))
    for kind in (*RETRIED, *ABSOLUTE, *TOLD, *ALARMS, "busy"):
        assert f" wait {kind} " in text
    for kind in RETRIED:
        assert any(
            line.startswith(f" wait {kind} ") and line.endswith("whole")
            for line in text.splitlines()
        )
    for words in (*(f"loop {n} {kind}" for n in "a" for kind in LOOPS), " timerfd ", "signalfd"):
        assert words in text
    for words in (" thread ", " fork ", " inline ", "USR1", "TERM", "visit"):
        assert words in text
    for each in scripts(range(300)).values():
        assert each.processes >= 1
        for visit in each.visits:
            assert visit.at + sum(pause + delay for pause, delay, _ in visit.asks) < each.lasts


def test_read() -> None:
    """What of a script is for who runs it."""
    text = "process\nserve a tcp fork poll\nsignal 0 USR1 500\nvisit a tcp 10 1 2 3 4 5 6\nlasts 99"
    read = Script.read(text)
    assert (read.lasts, read.processes, read.servers) == (99, 1, 1)
    assert [(sent.process, sent.name, sent.at) for sent in read.signals] == [(0, "USR1", 500)]
    assert read.visits[0].asks == ((1, 2, 3), (4, 5, 6))
    with pytest.raises(ValueError, match="zip"):
        Script.read("visit a tcp 10 1 2")
