"""Real runtimes, each in an arena of its own: cgroups of version 2 only; nothing of it is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.places import ROOT
from support.programs import get
from support.runtimes import ALL

NEEDS = {
    "docker": ["dockerd", "docker"],
    "podman": ["podman", "runc"],
    "runc": ["runc"],
    "crun": ["crun"],
    "lxc": ["lxc-start"],
    "systemd": ["systemd-nspawn"],
}

HERE = Path(__file__).parent

SECONDS = 240
"""For one runtime; it takes some 20."""

pytestmark = [
    pytest.mark.lasts(30),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make namespaces"),
]


@pytest.mark.parametrize("kind", ALL)
def test_located(kind: str, tmp_path: Path) -> None:
    """See C{inside/test_located.py}."""
    for each in ("tini", *NEEDS[kind]):
        get(each)
    argv = [
        *(str(HERE / "arena"), sys.executable, "-m", "pytest", str(HERE / "inside")),
        *("-p", "no:cacheprovider", "--numprocesses=0", "-q", f"--basetemp={tmp_path}/inside"),
    ]
    done = subprocess.run(
        argv,
        env={**os.environ, "CHANPROXY_TEST_ARENA": kind},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout
