"""
The real service with all defaults, in front of many containers that wake by their own sockets.

Knows nothing of what runs in them.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chanproxy.manager.errors import MANAGER
from chanproxy.manager.varlink import encodeCall, parseReply
from support.cgroups import TemporaryCgroup
from support.live import PATIENCE, LiveService, listens
from support.stalls import Stalls

WATCHDOG = 30
"""
Seconds: whoever thaws for a service that hangs knows no times.  Where many programs take all
processors, at a priority above it, that would be found too soon.
"""


class Fleet(LiveService):
    """The service, and the cgroups of its containers by their names."""

    def __init__(self, directory: Path, cgroups: Mapping[str, TemporaryCgroup]) -> None:
        super().__init__(directory)
        self.cgroups = cgroups
        self._stalls: Stalls | None = None

    def start(self) -> None:
        """Run it until it listens."""
        lines = [f'control = "seqpacket:{self.control}"', f"watchdog = {WATCHDOG}"]
        for name, cgroup in self.cgroups.items():
            lines += [f"[containers.{name}]", f'freezer = "{cgroup.spec}"', 'wake-on = "sockets"']
        file = self.directory / "chanproxy.toml"
        file.write_text("\n".join(lines) + "\n")
        self.service = self.run("--config", str(file))
        self.waitFor("listening", lambda: listens(self.control))

    def waited(self) -> float:
        """Also for a lock that it needs to freeze and to thaw, as far as that was asked for."""
        if self._stalls is None:
            self._stalls = Stalls()
        return super().waited() + self._stalls.look()

    def close(self) -> None:
        """See L{LiveService.close}."""
        if self._stalls is not None:
            self._stalls.close()
            self._stalls = None
        super().close()

    def describe(self, name: str) -> dict[str, Any]:
        """What the manager says of a container."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.settimeout(PATIENCE)
            control.connect(str(self.control))
            control.send(encodeCall(f"{MANAGER}.Describe", {"container": name}))
            reply = parseReply(control.recv(1 << 20))
        described: dict[str, Any] = reply.parameters["description"]
        return described
