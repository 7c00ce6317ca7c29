"""
C{twistd chanproxy}: options to a service, all errors at once, before anything is started.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import cast

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from chanproxy import config
from chanproxy.config import StartError, channels, containers, reading
from chanproxy.config.options import helpOf, written
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


_SHORT = {"listen": "l", "connect": "t", "freezer": "f"}


def _options() -> list[list[str | None]]:
    """All keys of a channel and of a container, each once."""
    keys = {key.name: key for key in (*channels.ALL, *containers.ALL) if key.option}
    first = sorted(keys.values(), key=lambda key: key.name not in _SHORT)
    return [[key.name, _SHORT.get(key.name), None, helpOf(key)] for key in first]


class Options(usage.Options):
    """Either C{--config}, or one container by C{--freezer}, with one channel or its own sockets."""

    synopsis = (
        "[--config FILE | --listen ENDPOINT --connect ENDPOINT --freezer FREEZER"
        " | --wake-on sockets --freezer FREEZER]"
    )
    optParameters = [  # noqa: RUF012  # usage.Options wants plain class attributes
        ["config", "c", None, "Configuration file (TOML)."],
        *_options(),
        ["name", None, "container", "The container's name, for log lines."],
        ["control", None, None, helpOf(reading.KEYS["control"])],
    ]

    configuration: config.Configuration
    file: str | None = None

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
                # It is read again, and a daemon may be elsewhere by then.
                self.file = os.path.abspath(self["config"])
            else:
                self.configuration = self._fromWords()
        except config.ConfigurationError as error:
            _refuse(str(error))
        problems = preflight(self.configuration, _reactor())
        if problems:
            _refuse("\n".join(map(str, problems)))

    def _fromWords(self) -> config.Configuration:
        """@raise ConfigurationError: with all problems."""
        container, channel = written(containers.ALL, self), None
        if self["listen"] is not None or self["connect"] is not None:
            channel = written(channels.ALL, self)
            # What both have is said of the channel.
            container = {key: value for key, value in container.items() if key not in channel}
        return config.fromOptions(container, channel, self["name"], self["control"])


class _Command(ChanproxyService):
    """The service as a program of its own."""

    def startService(self) -> None:
        """Start, or exit with status 1 and a sentence per problem."""
        # First: who has it read its file again may do so before it listens.
        Ending(self._reactor, None if self.source is None else self.rereadSoon).install()
        self._confine()
        try:
            super().startService()
        except StartError as error:
            _refuse(str(error))

    def _confine(self) -> None:
        """First, so that whatever it starts has no more rights either."""
        if not self.configuration.confine:
            return
        foreign = [c.freezer for c in self.configuration.containers if not isOurs(c.freezer)]
        if foreign:
            # Nobody knows what it takes, or what it starts.
            _log.info("it keeps all of its rights, because of {freezer}", freezer=foreign[0])
        else:
            confine()


def makeService(options: Options) -> IService:
    """For L{twisted.application.service.ServiceMaker}."""
    service = _Command(options.configuration, _reactor())
    if options.file is not None:
        service.source = partial(config.loadFile, options.file)
    return cast(IService, service)
