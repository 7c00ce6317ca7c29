"""
C{twistd chanproxy}: options to a service, all errors at once, before anything is started.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, cast

from attrs import evolve
from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger
from twisted.python import usage
from twisted.python.components import Componentized

from chanproxy import config
from chanproxy.config import Problem, StartError, channels, containers, history, reading
from chanproxy.config.options import helpOf, written
from chanproxy.freezers import isOurs
from chanproxy.freezers.frozen import thawRecorded
from chanproxy.freezers.thawing import thawNow
from chanproxy.interfaces import AnyReactor, ChanproxyReactor, expectReactor
from chanproxy.service.confining import confine
from chanproxy.service.ending import Ending
from chanproxy.service.logs import observerOf
from chanproxy.service.notices import Notices
from chanproxy.service.preflight import preflight
from chanproxy.service.service import ChanproxyService
from chanproxy.words import brief

_log = Logger()


def _reactor() -> ChanproxyReactor:
    from twisted.internet import reactor

    return expectReactor(reactor)


def _refuse(*reasons: str | Problem) -> NoReturn:
    """Exit with status 1 and without a traceback; what has a file begins with it."""
    located = [isinstance(reason, Problem) and bool(reason.file) for reason in reasons]
    lines = zip(map(str, reasons), located, strict=True)
    sys.exit("\n".join(line if file else f"chanproxy: {line}" for line, file in lines))


TWISTD = (
    "-n",
    "--nodaemon",
    "--logfile",
    "--pidfile",
    "-y",
    "--python",
    "-u",
    "--uid",
    "-g",
    "--gid",
)
"""Options of C{twistd(1)} that are given to us, by mistake."""

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
        ["log", None, None, helpOf(reading.KEYS["log"])],
        ["history", None, None, helpOf(history.KEYS["path"])],
    ]

    configuration: config.Configuration
    file: str | None = None

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """What is wrong with the words themselves is said with what to write."""
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]  # it has no annotations
        except usage.UsageError as error:
            word = re.fullmatch(r"option (-\S+) not recognized", str(error))
            if word is None or word[1] not in TWISTD:
                raise
            text = f"{word[1]} is for twistd, and stands before the word chanproxy"
            raise usage.UsageError(text) from None

    def parseArgs(self, *words: str) -> None:
        """There are none."""
        if words:
            raise usage.UsageError(
                f"{brief(words[0])} is no option; a file is given as --config {words[0]}"
            )

    def postOptions(self) -> None:
        """Thaw what a dead predecessor left, then check everything."""
        # First, so that not even a broken configuration leaves a container frozen.
        for spec in thawRecorded(thawNow, everything=False)[0]:
            print(f"chanproxy: {spec} was left frozen by a predecessor; thawed", file=sys.stderr)
        single = [name for name in ("listen", "connect", "freezer") if self[name] is not None]
        if self["config"] is not None and single:
            _refuse(f"--config: not together with --{single[0]}; put the channel into the file")
        for name, line in (("control", "control = ..."), ("history", "[history] path = ...")):
            if self["config"] is not None and self[name] is not None:
                _refuse(f"--config: not together with --{name}; write {line} into the file")
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
            _refuse(*error.problems)
        self._checkLog()
        problems = preflight(self.configuration, _reactor())
        if problems:
            _refuse(*problems)

    def _checkLog(self) -> None:
        """What the command line says of the log goes before the file."""
        if self["log"] is not None:
            kind = reading.KEYS["log"].kind
            try:
                log = kind.check(self["log"])
            except ValueError as error:
                _refuse(f"--log: {error}; {kind.remedy('log', '')}")
            self.configuration = evolve(self.configuration, log=log)

    def _fromWords(self) -> config.Configuration:
        """@raise ConfigurationError: with all problems."""
        container, channel = written(containers.ALL, self), None
        if self["listen"] is not None or self["connect"] is not None:
            channel = written(channels.ALL, self)
            # What both have is said of the channel.
            container = {key: value for key, value in container.items() if key not in channel}
        more = self["control"], self["history"]
        return config.fromOptions(container, channel, self["name"], *more)


class _Command(ChanproxyService):
    """The service as a program of its own."""

    def __init__(
        self,
        configuration: config.Configuration,
        reactor: AnyReactor,
        twistd: Mapping[str, Any] | None = None,
    ) -> None:
        """@param twistd: its own options."""
        super().__init__(configuration, reactor)
        self._twistd = twistd or {}
        self._notices = Notices(self._reactor, os.environ)
        self.summary.onChange = self._notices.status
        self._reloads = 0

    def setServiceParent(self, parent: Any) -> None:
        """Before C{twistd} begins to log, which asks what it runs where to."""
        cast(Any, super()).setServiceParent(parent)
        if not isinstance(parent, Componentized):
            return
        observer = observerOf(self.configuration.log, self._twistd, self._reactor)
        if observer is not None:
            parent.setComponent(ILogObserver, observer)

    def startService(self) -> None:
        """Start, or exit with status 1 and a sentence per problem."""
        # What it takes rights for that it gives up.
        self._guard.prepare()
        # First: who has it read its file again may do so before it listens.
        Ending(self._reactor, None if self.source is None else self.rereadSoon).install()
        self._confine()
        self._keeping.automatic = True
        try:
            super().startService()
        except StartError as error:
            _refuse(*self.configuration.located(error.problems))
        self._notices.status(self.summary.text)
        # The reactor is not turning yet.
        self._reactor.callWhenRunning(self._notices.ready)

    def rereadSoon(self) -> Deferred[None] | None:
        """Say so first, and when it is done."""
        self._notices.reloading()
        done = super().rereadSoon()
        if done is not None:
            self._reloads += 1
            done.addCallback(self._reread)
        return done

    def _reread(self, done: None) -> None:
        self._reloads -= 1
        if not self._reloads:
            self._notices.reloaded()

    def stopService(self) -> Deferred[object]:
        """Say so first."""
        self._notices.stopping()
        return super().stopService()

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
    service = _Command(options.configuration, _reactor(), options.parent)
    if options.file is not None:
        service.source = partial(_read, options.file, options["log"])
    return cast(IService, service)


def _read(file: str, log: str | None) -> config.Configuration:
    """
    The file as it is now.

    @param log: what the command line says of it.
    @raise ConfigurationError: with all problems.
    """
    configuration = config.loadFile(file)
    return configuration if log is None else evolve(configuration, log=log)
