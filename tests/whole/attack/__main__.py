"""
What the worst neighbours do to others, and what is left after a service that was killed, stopped
or stormed: C{python -m tests.whole.attack [--seconds N] [--load]}.  Prints Markdown tables, and
what is not as it should be; ends with 1 if there is anything.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import frozen

from support.places import ROOT
from tests.shared.priority import NICE
from tests.whole.attack.neighbours import NEIGHBOURS, Neighbour
from tests.whole.attack.siege import Siege, Witness

WORST, MEDIAN = 0.100, 0.010
"""Seconds that an answer may be late because of a neighbour, at the worst and at the median."""

BACK = 20.0
"""Seconds after which the service has no more open than before."""

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:+]+ \[[\w.#]+\] [^\x00-\x1f\x7f-\x9f]*|chanproxy: .*|\t?[ -~]*"
)
"""What a line of the log looks like; what others chose makes none of its own."""


@contextmanager
def load(wanted: bool) -> Iterator[None]:
    """Both processors have something to do."""
    count = len(os.sched_getaffinity(0)) if wanted else 0
    loops = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


class Attack:
    """
    All of it.

    @ivar wrong: what is not as it should be, in words.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.wrong: list[str] = []

    def _must(self, true: object, what: str) -> None:
        if not true:
            self.wrong.append(what)

    def neighbour(self, kind: Neighbour) -> str:
        """Its row."""
        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="chanproxy-siege-"))
            siege = Siege(Path(directory), stack, NICE)
            # What it needs for good it has by now.
            siege.pair()[0].close()
            before = self._settled(siege)
            witness = Witness(siege)
            stack.callback(witness.close)
            attempts, end = 0, time.monotonic() + self.seconds
            with kind.begin(siege) as again:
                while time.monotonic() < end and not siege.failed:
                    attempts += again()
            attempts += siege.counted
            seen = witness.end()
            left = self._left(siege, before)
            self._must(not siege.failed, f"{kind.does}: {siege.failed}")
            self._must(not left, f"{kind.does}: {left} descriptors are left")
            self._must(not seen.wrong, f"{kind.does}: {seen.wrong} answers to something else")
            self._must(seen.wakes > seen.asked / 2, f"{kind.does}: it hardly slept")
            inTime = seen.worst <= WORST and seen.median <= MEDIAN
            self._must(
                inTime, f"{kind.does}: late, {seen.median * 1e3:.1f}, {seen.worst * 1e3:.1f}"
            )
            self._ends(kind.does, siege)
            cells = (
                *(kind.does, f"{attempts:,}", f"{seen.asked:,}", f"{seen.wakes:,}"),
                *(f"{seen.median * 1e3:.1f} ms", f"{seen.worst * 1e3:.1f} ms", f"{left}"),
            )
            return f"| {' | '.join(cells)} |"

    def _settled(self, siege: Siege) -> int:
        before = -1
        while before != siege.descriptors:
            before = siege.descriptors
            time.sleep(0.3)
        return before

    def _left(self, siege: Siege, before: int) -> int:
        end = time.monotonic() + BACK
        # The witness has gone, too.
        while siege.descriptors > before and time.monotonic() < end and not siege.failed:
            time.sleep(0.05)
        return 0 if siege.failed else max(siege.descriptors - before, 0)

    def _ends(self, does: str, siege: Siege) -> None:
        siege.service.terminate()
        began = time.monotonic()
        try:
            siege.service.wait(10)
        except subprocess.TimeoutExpired:
            self.wrong.append(f"{does}: it does not end")
        self._must(time.monotonic() - began < 3, f"{does}: its end took more than 3 s")
        for cgroup in (siege.victim, siege.other):
            self._must(not cgroup.frozen(), f"{does}: left frozen")
        lines = siege.log.read_text(errors="replace").split("\n")
        strange = [line for line in lines if not LINE.fullmatch(line)]
        self._must(not strange, f"{does}: in the log: {strange[:2]}")

    def tests(self, does: str, count: str, names: Sequence[str], **more: str) -> str:
        """A row of tests that do something many times."""
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *names],
            cwd=ROOT,
            env=os.environ | more,
            capture_output=True,
            text=True,
        )
        said = done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr[-200:]
        self._must(done.returncode == 0, f"{does}: {done.stdout[-3000:]}")
        self._must("skipped" not in said, f"{does}: {said}")
        return f"| {does} | {count} | {said} | {time.monotonic() - began:.0f} s |"


@frozen
class Repeated:
    """
    Tests that do something many times.

    @ivar count: how often, for each second that a neighbour has.
    @ivar variable: what tells them.
    """

    does: str
    count: float
    variable: str
    names: tuple[str, ...]


REPEATED = (
    Repeated(
        "packets of all kinds at the control socket, by all kinds of users",
        *(200, "CHANPROXY_TEST_EXAMPLES", ("tests/manager/test_control_fuzz.py",)),
    ),
    Repeated(
        "killed under load, each batch finished from the record",
        *(50, "CHANPROXY_TEST_KILLS", ("tests/channels/test_inflight.py::test_killed",)),
    ),
    Repeated(
        "wakes, kills and races of one container",
        *(20, "CHANPROXY_TEST_CYCLES", ("tests/whole/test_service.py",)),
    ),
    Repeated(
        "storms of signals as it ends",
        *(1, "CHANPROXY_TEST_STORMS", ("tests/whole/test_ending.py::test_storms",)),
    ),
    Repeated(
        "killed with its guardian, without records, stopped, hung; a pause of somebody else's",
        *(0, "", ("tests/freezers/test_left_frozen.py", "tests/freezers/test_guardian.py")),
    ),
    Repeated(
        "one cgroup under several names, or in another; strange records, and races for them",
        *(0, "", ("tests/freezers/test_claims.py", "tests/freezers/test_frozen.py")),
    ),
    Repeated(
        "foreign words wherever they show; the socket inside a container",
        *(0, "", ("tests/whole/test_forged_words.py", "tests/guest/test_socket.py")),
    ),
)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each neighbour")
    parser.add_argument("--load", action="store_true", help="beside one on all processors")
    parser.add_argument("--only", default="", help="those neighbours that have this in their words")
    parser.add_argument("--neighbours", action="store_true", help="nothing else")
    options = parser.parse_args()
    attack = Attack(options.seconds)
    with load(options.load):
        words = ("what a neighbour does", "attempts", "messages to another container", "wakes")
        print(f"| {' | '.join(words)} | median | worst | descriptors left |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for kind in NEIGHBOURS:
            if options.only in kind.does:
                print(attack.neighbour(kind), flush=True)
        if not options.neighbours and not options.only:
            print("\n| | times | outcome | |\n| --- | ---: | --- | ---: |")
            for each in REPEATED:
                count = max(int(each.count * options.seconds), 1)
                more = {each.variable: str(count)} if each.variable else {}
                shown = f"{count:,}" if each.variable else ""
                print(attack.tests(each.does, shown, each.names, **more), flush=True)
    for wrong in attack.wrong:
        print(f"\nNOT AS IT SHOULD BE: {wrong}", flush=True)
    return bool(attack.wrong)


if __name__ == "__main__":
    sys.exit(main())
