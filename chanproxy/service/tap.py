"""
C{twistd chanproxy}: options to a service, all errors at once, before anything is started.
"""

from __future__ import annotations

import sys
from typing import cast

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from chanproxy import config
from chanproxy.carry.policies import DEFAULT, POLICIES
from chanproxy.config import StartError
from chanproxy.freezers import isOurs
from chanproxy.freezers.frozen import thawRecorded
from chanproxy.freezers.thawing import thawNow
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.service.confining import confine
from chanproxy.service.ending import Ending
from chanproxy.service.preflight import preflight
from chanproxy.service.service import ChanproxyService

_log = Logger()


def _reactor() -> ChanproxyReactor:
    from twisted.internet import reactor

    return cast(ChanproxyReactor, reactor)


def _refuse(text: str) -> None:
    """Exit with status 1 and without a traceback."""
    lines = "\n".join(f"chanproxy: {line}" for line in text.splitlines())
    sys.exit(lines)


class Options(usage.Options):
    """Either C{--config}, or one container by C{--freezer}, with one channel or its own sockets."""

    synopsis = (
        "[--config FILE | --listen ENDPOINT --connect ENDPOINT --freezer FREEZER"
        " | --wake-on sockets --freezer FREEZER]"
    )
    optParameters = [  # noqa: RUF012  # usage.Options wants plain class attributes
        ["config", "c", None, "Configuration file (TOML)."],
        [
            "listen",
            "l",
            None,
            "Where peers connect: seqpacket:PATH, unix:PATH, tcp:PORT and others.",
        ],
        [
            "connect",
            "t",
            None,
            "Where the container listens: seqpacket:PATH, tcp:HOST:PORT and others.",
        ],
        ["freezer", "f", None, "What freezes the container: cgroup:PATH, or none."],
        ["linger", None, "0.5", "Seconds of quiet before the container is frozen."],
        ["suspend", None, "auto", "When to suspend: auto, manual, dry-run, off."],
        ["initiator", None, "remote", "Who dials --listen: remote, container."],
        ["handled", None, DEFAULT, f"When a message is handled: {', '.join(POLICIES)}."],
        ["unanswered", None, None, "Seconds to wait for an answer, with --handled answered."],
        ["silence", None, None, "Seconds of silence until all is handled, with --handled idle."],
        ["framing", None, "none", "How a stream carries packets: none, length32."],
        ["descriptors", None, "carry", "What becomes of descriptors: carry, refuse."],
        ["identity", None, "service", "As whom the container is dialled: service, peer."],
        ["keepalive-idle", None, None, "Seconds until a silent TCP peer is probed; 0: never."],
        ["keepalive-interval", None, None, "Seconds between such probes."],
        ["keepalive-count", None, None, "Probes without an answer until the peer is gone."],
        ["name", None, "container", "The container's name, for log lines."],
        ["wake-on", None, "channels", "What wakes it: channels, or also its own sockets: sockets."],
        ["control", None, None, "Where to take calls: a path, or seqpacket:PATH[:mode=600]."],
    ]

    configuration: config.Configuration

    def postOptions(self) -> None:
        """Thaw what a dead predecessor left, then check everything."""
        # First, so that not even a broken configuration leaves a container frozen.
        for spec in thawRecorded(thawNow, everything=False)[0]:
            print(f"chanproxy: {spec} was left frozen by a predecessor; thawed", file=sys.stderr)
        single = [name for name in ("listen", "connect", "freezer") if self[name] is not None]
        if self["config"] is not None and single:
            _refuse(f"--config: not together with --{single[0]}; put the channel into the file")
        if self["config"] is not None and self["control"] is not None:
            _refuse("--config: not together with --control; write control = ... into the file")
        enough = single == ["freezer"] if self["wake-on"] == "sockets" else False
        if self["config"] is None and len(single) < 3 and not enough:
            _refuse(
                "give --config FILE, or --listen, --connect and --freezer, "
                "or --wake-on sockets and --freezer; see --help"
            )
        try:
            if self["config"] is not None:
                self.configuration = config.loadFile(self["config"])
            else:
                self.configuration = config.fromOptions(
                    listen=self["listen"],
                    connect=self["connect"],
                    freezer=self["freezer"],
                    linger=self["linger"],
                    suspend=self["suspend"],
                    handled=self["handled"],
                    initiator=self["initiator"],
                    name=self["name"],
                    control=self["control"],
                    wakeOn=self["wake-on"],
                    silence=self["silence"],
                    framing=self["framing"],
                    descriptors=self["descriptors"],
                    identity=self["identity"],
                    unanswered=self["unanswered"],
                    keepalive={
                        each: self[f"keepalive-{each}"] for each in ("idle", "interval", "count")
                    },
                )
        except config.ConfigurationError as error:
            _refuse(str(error))
        problems = preflight(self.configuration, _reactor())
        if problems:
            _refuse("\n".join(map(str, problems)))


class _Command(ChanproxyService):
    """The service as a program of its own."""

    def startService(self) -> None:
        """Start, or exit with status 1 and a sentence per problem."""
        self._confine()
        try:
            super().startService()
        except StartError as error:
            _refuse(str(error))
        Ending(self._reactor).install()

    def _confine(self) -> None:
        """First, so that whatever it starts has no more rights either."""
        if not self._configuration.confine:
            return
        foreign = [c.freezer for c in self._configuration.containers if not isOurs(c.freezer)]
        if foreign:
            # Nobody knows what it takes, or what it starts.
            _log.info("it keeps all of its rights, because of {freezer}", freezer=foreign[0])
        else:
            confine()


def makeService(options: Options) -> IService:
    """For L{twisted.application.service.ServiceMaker}."""
    return cast(IService, _Command(options.configuration, _reactor()))
