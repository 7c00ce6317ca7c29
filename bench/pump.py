"""
What carrying costs, beside other proxies: C{make bench}, or C{python -m bench.pump --help}.

Runs chanproxy as the service that it is, with freezer C{none}, and everything else that is
installed, over Unix sockets in a temporary directory and the loopback interface.  Prints Markdown;
with C{--output} also writes it, with plots beside it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from bench.drawing import draw
from bench.measure import Failed, adoptOrphans, compile_, processors, raiseDescriptorLimit
from bench.peers import SEQPACKET, UNIX, installed
from bench.report import markdown
from bench.rounds import FULL, QUICK, Bench, Effort
from bench.works import WORKS, Work, setups

DESCRIPTORS = 65536
"""Enough for 5,000 channels through every peer; systemd-socket-proxyd has six for each."""
LINES_APART = 10.0
"""Seconds between two lines of progress, where they cannot replace each other."""
IDLE = [f"idle-{kind}" for kind in (SEQPACKET, UNIX)]


class Progress:
    """Where it is, on standard error: one line that changes, or else a line now and then."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._began = time.monotonic()
        self._said = -LINES_APART
        self._terminal = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        """The next step begins."""
        share = min(99, 100 * self._done // self._steps)
        self._done += 1
        now = time.monotonic()
        line = f"[{now - self._began:4.0f} s, {share:2d} %] {text}"
        if self._terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif now - self._said >= LINES_APART:
            self._said = now
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        seconds = time.monotonic() - self._began
        start = "\r\x1b[K" if self._terminal else ""
        print(f"{start}done in {seconds:.0f} s", file=sys.stderr, flush=True)


def _steps(works: Sequence[Work], idle: Sequence[str], effort: Effort, peers: int) -> int:
    count = peers * effort.idleRounds * len(idle)
    for setup in setups(works):
        rounds = effort.rounds if setup[0].channels == 1 else effort.manyRounds
        count += 1 + (rounds + 1) * len(setup)
    return max(1, count)


def _chosen(only: Sequence[str]) -> tuple[list[Work], list[str]]:
    if not only:
        return WORKS, IDLE
    works = [work for work in WORKS if any(fnmatch(work.name, pattern) for pattern in only)]
    return works, [name for name in IDLE if any(fnmatch(name, pattern) for pattern in only)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.pump", description=(__doc__ or "").strip())
    parser.add_argument("--quick", action="store_true", help="less of everything, 1 to 2 minutes")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="works with this name, * and ? allowed; may be repeated; see --list",
    )
    parser.add_argument("--list", action="store_true", help="print the works' names")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write Markdown, plots beside it"
    )
    return parser.parse_args()


def _terminated(number: int, frame: object) -> None:
    # So that everything that was started is ended.
    raise SystemExit(128 + number)


def main() -> None:
    """Measure, print, write."""
    arguments = _arguments()
    works, idle = _chosen(arguments.only)
    if arguments.list:
        print("\n".join([*(work.name for work in WORKS), *IDLE]))
        return
    if not works and not idle:
        raise SystemExit("no work has such a name; see --list")
    signal.signal(signal.SIGTERM, _terminated)
    adoptOrphans()
    limit = raiseDescriptorLimit(DESCRIPTORS)
    where = processors()
    effort = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        try:
            load = compile_(directory, "loads", "loads.c", "trips.c")
            peers, missing = installed(directory)
        except Failed as failure:
            raise SystemExit(f"bench: {failure}") from failure
        progress = Progress(_steps(works, idle, effort, len(peers)))
        bench = Bench(directory, load, peers, where, limit, effort, progress)
        for line in missing:
            bench.results.note(line)
        for setup in setups(works):
            bench.run(setup)
        for each in idle:
            bench.idle(each.partition("-")[2])
        progress.end()
    results = bench.results
    plots = []
    for file, title, picture in draw(results) if arguments.output else ():
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        (arguments.output.parent / file).write_text(picture)
        plots.append((file, title))
    print(markdown(results, where, effort, []))
    if arguments.output:
        arguments.output.write_text(
            f"# Performance of the pump\n\n{markdown(results, where, effort, plots)}"
        )


if __name__ == "__main__":
    main()
