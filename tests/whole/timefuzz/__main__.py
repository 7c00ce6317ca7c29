"""
The fuzzer of time, as a command: C{python -m tests.whole.timefuzz}.

Programs that wait in random ways are run twice at once, without chanproxy and under it; nothing
may be missing, and nothing later than the bounds of L{tests.whole.timefuzz.judge}::

    python -m tests.whole.timefuzz                    # rounds with seeds that nobody has tried
    python -m tests.whole.timefuzz --seed 7 --print   # a seed's script, to be made smaller by hand
    python -m tests.whole.timefuzz FILE...            # run what was made of it
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.whole.timefuzz.judge import Fault, byKind
from tests.whole.timefuzz.runs import compareAll
from tests.whole.timefuzz.scripts import Script, script, scripts


def main() -> int:
    """@return: the exit status: whether there were faults."""
    parser = argparse.ArgumentParser(prog="timefuzz", description="The fuzzer of time.")
    parser.add_argument("files", nargs="*", type=Path, help="scripts; without, they are made up")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first program")
    parser.add_argument("--count", type=int, default=40, help="programs in a round")
    parser.add_argument(
        "--rounds", type=int, default=int(os.environ.get("CHANPROXY_TIMEFUZZ_ROUNDS", "1"))
    )
    parser.add_argument("--without", action="store_true", help="both runs are without chanproxy")
    parser.add_argument("--directory", type=Path, help="keep the scripts and the log there")
    parser.add_argument("--print", action="store_true", help="the script of the seed, and no run")
    options = parser.parse_args()
    if options.print:
        print(script(options.seed), end="")
        return 0
    faults: list[Fault] = []
    for number in range(options.rounds):
        first = options.seed + number * options.count
        chosen = (
            {file.stem: Script.read(file.read_text()) for file in options.files}
            if options.files
            else scripts(range(first, first + options.count))
        )
        with tempfile.TemporaryDirectory() as temporary:
            directory = options.directory or Path(temporary)
            directory.mkdir(exist_ok=True)
            outcome = compareAll(directory, chosen, not options.without)
        print(f"round {number + 1}, seeds from {first}:\n{outcome}", flush=True)
        faults += outcome.faults
    if options.rounds > 1:
        print(f"all rounds:\n{byKind(faults)}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
