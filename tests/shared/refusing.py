"""C{twistd chanproxy} that is not to start."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.live import TWISTD


def refused(directory: Path, *arguments: str, status: int = 1) -> str:
    """What it says; it ends, and by no exception."""
    done = subprocess.run(
        [*TWISTD, "-n", "--pidfile=", "chanproxy", *arguments],
        cwd=directory,
        env=dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(directory / "runtime")),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == status
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr
