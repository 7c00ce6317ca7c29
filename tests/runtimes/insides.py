"""
Real runtimes, each in an arena of its own: cgroups of version 2 only; nothing of it is left.

Those that last have a file each, for another worker each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from support.places import ROOT
from support.programs import get

NEEDS = {
    "docker": ["dockerd", "docker"],
    "podman": ["podman", "runc"],
    "runc": ["runc"],
    "crun": ["crun"],
    "lxc": ["lxc-start"],
    "systemd": ["systemd-nspawn"],
}

HERE = Path(__file__).parent

SECONDS = 900
"""For one runtime, beside whatever else runs; it takes some 20 to 320."""

HYBRID = "wakes or serviceLater or comesAndGoes or execute or executions or does and not pause"
"""What is the same where an engine pauses by version 1."""

needsRoot = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make namespaces")


def inside(kind: str, hybrid: bool = False) -> None:
    """
    Run what is in C{inside} for one runtime.

    @param hybrid: among the machine's own cgroups, where those may be of both versions.
    """
    for each in ("tini", *NEEDS[kind]):
        get(each)
    # A short name: paths of sockets are below it.
    with tempfile.TemporaryDirectory(prefix="arena-") as directory:
        _run(kind, directory, hybrid)


def _run(kind: str, directory: str, hybrid: bool) -> None:
    argv = [
        *(
            str(HERE / "arena"),
            *(["--hybrid"] if hybrid else []),
            sys.executable,
            "-m",
            "pytest",
            str(HERE / "inside"),
        ),
        *("-p", "no:cacheprovider", "--numprocesses=0", "-q", f"--basetemp={directory}/in"),
        *(["-k", HYBRID] if hybrid else []),
    ]
    variables = {"CHANPROXY_TEST_ARENA": kind}
    if hybrid:
        variables["CHANPROXY_TEST_HYBRID"] = "1"
    done = subprocess.run(
        argv,
        env={**os.environ, **variables},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout
