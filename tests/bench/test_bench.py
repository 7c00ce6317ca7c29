"""The benchmark's arithmetic, and a short run of it where there is a C compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench.breath import Used, row
from bench.drawing import draw
from bench.peers import BATCH, CHANPROXY, SEQPACKET, SOCAT
from bench.plots import short, ticks
from bench.targets import targets
from bench.works import PACKETS, Figure, Idle, Results, Sample, Series, figure, setups
from support.places import ROOT


def sample(rate: float, cpu: float) -> Sample:
    return Sample(rate=rate, cpu=cpu, waiting=0, load=0)


def test_aFigureIsTheMedianBetweenItsQuartiles() -> None:
    assert figure([3, 1, 2, 5, 4]) == Figure(3, 2, 4)
    assert figure([7]) == Figure(7, 7, 7)


def test_aRatioIsTakenBetweenNeighboursInTime() -> None:
    # The second round met a machine half as fast; each pair saw the same.
    series = Series(PACKETS[0])
    series.samples[CHANPROXY] = [sample(200, 1), sample(100, 2), sample(200, 1)]
    series.samples[SOCAT] = [sample(100, 2), sample(50, 4), sample(100, 2)]
    assert series.ratio(CHANPROXY, SOCAT, lambda each: each.rate) == Figure(2, 2, 2)
    assert series.ratio(CHANPROXY, BATCH, lambda each: each.rate) is None


def verdicts(results: Results) -> dict[str, str]:
    return {f"{each.work}: {each.figure}": each.verdict for each in targets(results)}


def test_targetsSayWhatIsReachedAndWhatIsNot() -> None:
    series = Series(PACKETS[0])
    series.samples[CHANPROXY] = [sample(300, 1.4)]
    series.samples[BATCH] = [sample(400, 1)]
    series.samples[SOCAT] = [sample(100, 3)]
    idle = Idle(SEQPACKET, 5000, bytesEach=[1024.0], crowded=[0.9])
    results = Results(series=[series], idleKinds=[SEQPACKET], idle={(SEQPACKET, CHANPROXY): idle})
    assert verdicts(results) == {
        f"seqpacket, 64 B: CPU per message ÷ {BATCH}": "reached",
        "seqpacket, 64 B: CPU per message ÷ socat": "**not reached**",
        "seqpacket, 64 B: throughput ÷ socat": "reached",
        f"seqpacket, 64 B: throughput ÷ {BATCH}": "aim not reached",
        "seqpacket, 5,000 idle channels: speed of a busy one ÷ alone": "**not reached**",
        "seqpacket, 5,000 idle channels: resident memory, each": "reached, and the aim",
    }


def test_whatWasNotMeasuredIsSaid() -> None:
    series = Series(PACKETS[0])
    series.samples[CHANPROXY] = [sample(300, 1.4)]
    assert set(verdicts(Results(series=[series])).values()) == {"not measured"}


def test_worksThatCanShareChannelsDo() -> None:
    assert setups(PACKETS) == [PACKETS]


def test_plotsAreWellFormed() -> None:
    series = Series(PACKETS[0])
    series.samples[CHANPROXY] = [sample(300, 1.4e-6)]
    series.samples["a < b"] = [sample(200, 2e-6)]
    plots = list(draw(Results(series=[series])))
    assert [name for name, _, _ in plots] == ["pump-packets-cpu.svg", "pump-packets-rate.svg"]
    for _, _, picture in plots:
        texts = [element.text for element in ElementTree.fromstring(picture).iter()]
        assert "a < b" in texts


def test_aBreathCostsWhatIsMoreThanWithoutBreaths() -> None:
    without = Used(seconds=10, service=0.01, own=0, breaths=0, breathing=0, wakes=0)
    used = Used(seconds=30, service=0.33, own=0.06, breaths=60, breathing=0.6, wakes=1)
    assert row("it", without, used) == (
        "| it | 5.00 ms | 1.00 ms | 10.0 ms | 98.00 % | 99.933 % | 0.033 % | 60, 1 |"
    )


@pytest.mark.parametrize(
    ("most", "marks"),
    [(3.1, [0, 1, 2, 3, 4]), (10, [0, 2.5, 5, 7.5, 10]), (0, [0, 1])],
)
def test_scalesHaveRoundMarksFromZero(most: float, marks: list[float]) -> None:
    assert ticks(most) == pytest.approx(marks)


def test_numbersAreShort() -> None:
    assert [short(value) for value in (1234.5, 123.45, 12.345)] == ["1,234", "123", "12.3"]


def test_aShortRunMeasuresThroughARealService(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.fail("the benchmark needs a C compiler: apt-get install gcc libc6-dev")
    output = tmp_path / "pump.md"
    done = subprocess.run(
        [
            *[sys.executable, "-m", "bench.pump", "--quick"],
            *["--only", "seqpacket-64-descriptor", "--output", str(output)],
        ],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    table = output.read_text()
    assert "not measured" not in table
    for peer in (CHANPROXY, BATCH):
        assert f"\n| {peer} | " in table
    assert (tmp_path / "pump-packets-cpu.svg").exists()
