"""One round of the fuzzer of time under the real service; C{make fuzz-time} makes many."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frozen import needsCgroup
from tests.timefuzz_runs import compareAll
from tests.timefuzz_scripts import scripts

pytestmark = [*needsCgroup, pytest.mark.lasts(80), pytest.mark.punctual]

KEPT = (1, 4, 5, 7, 8, 11, 13, 18, 19, 20, 23, 24)
"""Seeds that have found something.  A change of how scripts are made up makes others of them."""

MORE = range(1000, 1028)
"""To fill the round."""


@pytest.mark.parametrize("half", [0, 1])
def test_round(tmp_path: Path, half: int) -> None:
    """
    Twenty programs: nothing is missing, comes twice, early, or later than the bound.

    Not forty: those fall asleep together, so they breathe together, and beside the rest of the
    suite that is more than two processors do within the bound.
    """
    outcome = compareAll(tmp_path, scripts((*KEPT, *MORE)[half::2]))
    print(outcome)
    assert outcome.faults == []
    # Some are busy or visited all the time; a round in which few sleep would find nothing.
    assert sum(share > 0.2 for share in outcome.asleep.values()) > 9
    assert outcome.count > 180
