"""
The unit file that has systemd run the service: what is in it, and what it may do.

Pure text; what each line is for, and which are left out, is in C{docs/howto-systemd.md}.
"""

from __future__ import annotations

from collections.abc import Iterable

from chanproxy.service.confining import BEFORE, KEPT

NAME = "chanproxy.service"

_HEAD = """\
# Made by: chanproxy install --systemd.  What differs here is best put beside it, by
# "systemctl{user} edit chanproxy", and stays when this file is made anew.
# Why each line is there, and why others are not: docs/howto-systemd.md.
"""

_UNIT = """
[Unit]
Description=chanproxy, which freezes idle containers and wakes them
"""

_ORDER = """\
After=network.target
# Its sockets are there before containers and their peers are, and while they are stopped.
Before=docker.service containerd.service podman.service podman-restart.service crio.service
Before=lxc.service machines.target
"""

_SERVICE = """
[Service]
Type=notify
ExecStart={twistd} -n --pidfile= chanproxy --config {config}
ExecReload={chanproxy} reload
# What is left frozen if all of it was killed at once.
ExecStopPost={chanproxy} thaw
Restart=on-failure
RestartSec=1
WatchdogSec=30
RuntimeDirectory=chanproxy
RuntimeDirectoryMode=0711
# The records of what is frozen are in it.
RuntimeDirectoryPreserve=yes
StateDirectory=chanproxy
StateDirectoryMode=0700
LimitNOFILE=65536
"""

_RIGHTS = """
# What it keeps itself, and the first two, which it gives up when it starts.
CapabilityBoundingSet={rights}
"""

_EVERYWHERE = """
NoNewPrivileges=yes
RestrictNamespaces=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_VSOCK AF_NETLINK
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @module @mount @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
"""

_SYSTEM = """\
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=full
"""

_INSTALL = """
[Install]
WantedBy={target}
"""


def unit(
    twistd: str, chanproxy: str, config: str, user: bool = False, confined: bool = True
) -> str:
    """
    The text of a unit.

    @param twistd: the command's path; C{chanproxy}, likewise.
    @param config: the configuration's path.
    @param user: of a user's own manager.
    @param confined: it needs no more rights than the service keeps by itself.
    """
    values = {
        "user": " --user" if user else "",
        "twistd": quoted(twistd),
        "chanproxy": quoted(chanproxy),
        "config": quoted(config),
        "rights": " ".join([*BEFORE, *KEPT]),
        "target": "default.target" if user else "multi-user.target",
    }
    return "".join(part.format(**values) for part in _parts(user, confined))


def _parts(user: bool, confined: bool) -> Iterable[str]:
    yield from (_HEAD, _UNIT, "" if user else _ORDER, _SERVICE)
    if confined:
        if not user:
            yield _RIGHTS
        yield _EVERYWHERE
        if not user:
            yield _SYSTEM
    yield _INSTALL


def quoted(word: str) -> str:
    """A word of a command line in a unit, C{systemd.service(5)}."""
    doubled = word.replace("%", "%%").replace("$", "$$")
    if all(character.isalnum() or character in "/._-+@:,=%$" for character in doubled):
        return doubled
    return '"' + doubled.replace("\\", "\\\\").replace('"', '\\"') + '"'
