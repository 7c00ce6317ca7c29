"""
The pages about installing and about users without rights, on a systemd that is booted for them.

What is installed by pip, which needs a network, is run by C{make wheel}; those are the page's
blocks of C{sh}, and these here the blocks of C{bash}.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator

import pytest

from support.places import DOCS, ROOT
from tests.shared.pages import blocks, unsaid
from tests.shared.systemd import Booted, User, whyNotBooted

pytestmark = [
    pytest.mark.lasts(60),
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(whyNotBooted()), reason=whyNotBooted() or "one can be booted"),
]

PATH = f"PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH\n"


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """One for all tests."""
    with Booted(tmp_path_factory.mktemp("booted")) as made:
        yield made


def test_service(booted: Booted) -> None:
    """It is installed, runs, is upgraded, and is gone afterwards with all that it had."""
    # Of the checkout, wherever what is installed is from.
    booted.write(
        "/etc/systemd/system/chanproxy.service.d/checkout.conf",
        f"[Service]\nEnvironment=PYTHONPATH={ROOT}\n",
    )
    install, upgrade, uninstall = blocks(DOCS / "install.md", "bash")
    script = f"{PATH}{install}systemctl show -P ActiveState,NRestarts chanproxy\n"
    output = booted.run("bash", "-e", "-c", script)
    assert "active" in output.splitlines(), output
    before = booted.show("chanproxy", "MainPID", "UnitFileState")
    assert before[1] == "enabled"
    booted.run("bash", "-e", "-c", PATH + upgrade)
    after = booted.show("chanproxy", "MainPID", "ActiveState")
    assert after[0] != before[0]
    assert after[1] == "active"
    booted.run("bash", "-e", "-c", PATH + uninstall)
    for name in ("/run/chanproxy", "/var/lib/chanproxy", "/etc/chanproxy.toml"):
        assert not booted.path(name).exists(), name
    assert booted.show("chanproxy", "ActiveState") == ["inactive"]


def test_rootless(booted: Booted) -> None:
    """The blocks run in the shell that the page makes, and print what it shows."""
    page = DOCS / "howto-rootless.md"
    (shell,) = re.findall(r"`(systemd-run --user --scope [^`]* bash)`", page.read_text())
    script = PATH + "".join(blocks(page, "sh"))
    with User(booted) as ann:
        output = ann.run(*shlex.split(shell), "-e", "-c", script)
    assert unsaid(page, output) == [], output
    assert re.search(r"(?m)^web +asleep", output), output
