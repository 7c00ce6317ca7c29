"""
Which files of tests are quick: nine hundred tests that need neither root nor cgroups.

C{python -m tests.quick} prints them, for `make versions` and `make coverage`.  Knows nothing but
their names: it is run where nothing of ours is installed.
"""

from __future__ import annotations

from pathlib import Path

QUICK = {
    "carry": "answered checked handled policies proxy",
    "channels": "adapter framed kinds sending streams terminated transport",
    "commands": "call operators options programs report showing where",
    "config": "access by_hand changes places reading remedies setting unwise",
    "container": "account cadence changes changing closed suspension watchers",
    "endpoints": "addresses dialling plain seldom",
    "guest": "guest socket waking",
    "kernel": "poller",
    "manager": (
        "client control control_access control_interface control_sequences "
        "describe facts http locks sources suspend trace varlink varlink_socket watchers"
    ),
    "service": "broken_plugins framing journal notices reloading tls",
    "wake": "counter history history_file sources",
    "whole": "wake_kinds",
}
"""By their directories."""


def files() -> list[Path]:
    """Where they are."""
    here = Path(__file__).parent
    return [
        here / room / f"test_{name}.py" for room, names in QUICK.items() for name in names.split()
    ]


if __name__ == "__main__":
    print(*files(), sep="\n")
