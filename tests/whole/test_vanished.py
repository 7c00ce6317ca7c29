"""TCP peers that vanish behind a channel: the other end is told, and those alive are kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.places import ROOT
from tests.shared.certificates import makeCertificate
from tests.shared.needs import needs

pytestmark = pytest.mark.lasts(30)


@needs("iptables", "unshare", "ip")
def test_vanished(tmp_path: Path) -> None:
    """In each place that is TCP, on both sides; a peer that is alive and does not read stays."""
    makeCertificate(tmp_path)
    run = subprocess.run(
        ["unshare", "-n", sys.executable, "-m", "tests.whole.vanishing", str(tmp_path)],
        capture_output=True,
        cwd=ROOT,
        env=dict(os.environ, PATH=f"{os.environ['PATH']}:/usr/sbin"),
        timeout=120,
    )
    log = tmp_path / "log"
    assert run.returncode == 0, run.stderr.decode() + (log.read_text() if log.exists() else "")
    said = json.loads(run.stdout)
    took = {
        name: said[name][0] for name in ("default", "idle", "flying", "inner", "dialled", "tls")
    }
    assert took.pop("default") < 29, said
    assert all(seconds < 9 for seconds in took.values()), said
    # An end in order would say that nothing is missing.
    assert {said[name][1] for name in (*took, "default")} == {"reset"}, said
    assert said["off"] == [10, "nothing"]
    sent, received = said["slow"]
    assert sent == received > 1 << 20
    # The one that is not kept alive, and the slow one.
    assert said["open"] == 2
