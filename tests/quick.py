"""
Which files of tests are quick: nine hundred tests that need neither root nor cgroups.

C{python -m tests.quick} prints them, for `make versions` and `make coverage`.  Knows nothing but
their names: it is run where nothing of ours is installed.
"""

from __future__ import annotations

from pathlib import Path

QUICK = (
    *("answered", "cadence", "call_command", "channels", "client", "config", "config_access"),
    *("control", "control_access", "control_interface", "control_sequences", "counter"),
    *("dialling", "endpoint_channels", "framed_channels", "framing", "guest", "guest_socket"),
    *("guest_waking", "handled", "kinds", "manager_describe", "manager_locks", "manager_sources"),
    *("manager_suspend", "manager_watchers", "policies", "poller", "proxy", "seldom", "seqpacket"),
    *("stream", "suspend", "tls", "trace", "varlink", "wake", "wake_kinds", "watchers"),
)


def files() -> list[Path]:
    """Where they are, in whatever directory below this one."""
    found = {path.stem: path for path in Path(__file__).parent.rglob("test_*.py")}
    return [found[f"test_{name}"] for name in QUICK]


if __name__ == "__main__":
    print(*files(), sep="\n")
