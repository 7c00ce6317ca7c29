"""The description of what is served over HTTP is true: schemathesis asks for all that it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet.task import LoopingCall

from chanproxy.interfaces import ChanproxyReactor
from support.ports import freePort
from tests.shared.running import thread
from tests.shared.sides import asynchronous
from tests.shared.web import Web

TOOL = Path(sys.prefix) / "schemathesis" / "bin" / "schemathesis"
"""In an environment of its own: it would bring a plugin of pytest's into ours."""

TOKEN = "0123456789abcdef-schema"

pytestmark = pytest.mark.lasts(60)


@pytest.mark.skipif(not TOOL.exists() and "CI" not in os.environ, reason="not installed")
@asynchronous
async def test_schema(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    Whatever is asked, right or wrong, is answered as the description says.

    Streams do not end, and are left out.
    """
    token, address = tmp_path / "token", freePort()
    token.write_text(TOKEN)
    token.chmod(0o600)
    command = [
        *(str(TOOL), "run", f"http://127.0.0.1:{address}/openapi.json"),
        *("-H", f"Authorization: Bearer {TOKEN}", "--exclude-path", "/events"),
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
        *("--max-examples", "25", "--request-timeout", "20", "--continue-on-failure"),
        *("--generation-database", "none", "--no-color", "--suppress-health-check", "all"),
    ]
    async with Web(reactor, tmp_path, f"tcp:{address}", f"http-token-file = '{token}'") as web:

        def resume() -> None:
            # What was suspended by a request is answered after the resume.
            for container in web.service.containers.values():
                container.suspension.resume("on")

        resuming = LoopingCall(resume)
        resuming.start(0.02)
        try:
            done = await thread(
                lambda: subprocess.run(
                    command, capture_output=True, text=True, timeout=300, cwd=tmp_path
                )
            )
        finally:
            resuming.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    # It warns that most names that it makes up are of no container.
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) == int(found[2]) > 100
