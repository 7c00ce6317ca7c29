"""The tracer, on threads that do not stop."""

from __future__ import annotations

import pytest

from chanproxy.adopt.tracing import CannotTrace, Tracer, tracerOf
from support.cgroups import TemporaryCgroup
from support.processes import cannotStick, stuckProcess
from tests.shared.frozen import needsCgroup, until

pytestmark = [
    *needsCgroup,
    pytest.mark.skipif(bool(cannotStick()), reason=cannotStick() or "usable"),
]


def test_doesNotStop() -> None:
    """It is said so, again and again; we are no debugger of somebody else's, and let go of it."""
    tracer = Tracer()
    with TemporaryCgroup() as cgroup:
        with stuckProcess(cgroup) as stuck:
            with pytest.raises(CannotTrace, match=r"did not stop for a look within 0\.1 s"):
                tracer.registers([stuck.pid])
            for _ in range(2):
                with pytest.raises(CannotTrace, match="has not stopped for the last look yet"):
                    tracer.registers([stuck.pid])
            assert tracer.releaseLate()
        until(lambda: not tracer.releaseLate())
        assert tracerOf(stuck.pid) == 0
