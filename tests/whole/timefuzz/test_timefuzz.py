"""One round of the fuzzer of time under the real service; C{make fuzz-time} makes many."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared.frozen import needsCgroup
from tests.whole.timefuzz.runs import compareAll
from tests.whole.timefuzz.scripts import scripts

pytestmark = [*needsCgroup, pytest.mark.lasts(40), pytest.mark.punctual, pytest.mark.alone]

KEPT = (1, 4, 5, 7, 8, 11, 13, 18, 19, 20, 23, 24)
"""Seeds that have found something.  A change of how scripts are made up makes others of them."""

MORE = range(1000, 1028)
"""To fill the round."""


def test_round(tmp_path: Path) -> None:
    """Forty programs: nothing is missing, comes twice, early, or later than the bound."""
    outcome = compareAll(tmp_path, scripts((*KEPT, *MORE)))
    print(outcome)
    assert outcome.faults == []
    # Some are busy or visited all the time; a round in which few sleep would find nothing.
    assert sum(share > 0.2 for share in outcome.asleep.values()) > 20
    assert outcome.count > 400
