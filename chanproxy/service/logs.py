"""
Logs: which form the log of a program has: plain text, JSON, or entries of systemd's journal.

Knows C{twistd}'s own options, and no container.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, cast

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import ILogObserver, LogEvent, eventAsText, jsonFileLogObserver
from twisted.python.logfile import LogFile
from zope.interface import implementer

from chanproxy.interfaces import ChanproxyReactor
from chanproxy.service.journal import JournalObserver, isJournal

_STDERR = 2


def observerOf(
    kind: str, twistd: Mapping[str, Any], reactor: ChanproxyReactor
) -> ILogObserver | None:
    """
    What is to be told of all that is logged.

    @param kind: C{auto}, C{plain}, C{json} or C{journal}, as in a configuration.
    @param twistd: its own options.
    @return: L{None}: whatever those say.
    """
    if kind == "auto":
        elsewhere = any(twistd.get(each) for each in ("logfile", "syslog", "logger"))
        under = isJournal(_STDERR, os.environ.get("JOURNAL_STREAM", ""))
        kind = "journal" if under and not elsewhere else "plain"
    if kind == "journal":
        return JournalObserver()
    return JSONObserver(_file(twistd, reactor)) if kind == "json" else None


def _file(twistd: Mapping[str, Any], reactor: ChanproxyReactor) -> Any:
    """Where C{twistd} would log to."""
    path = twistd.get("logfile") or ("-" if twistd.get("nodaemon") else "twistd.log")
    if path == "-":
        return sys.stdout
    file = LogFile.fromFullPath(path)
    # As it does itself.
    if not signal.getsignal(signal.SIGUSR1):
        threads = cast(IReactorFromThreads, reactor)
        signal.signal(signal.SIGUSR1, lambda *_: threads.callFromThread(file.rotate))
    return file


@implementer(ILogObserver)
class JSONObserver:
    """
    Writes an object in a line for each event, which L{twisted.logger.eventsFromJSONLogFile} reads.

    Its text is in it as C{log_text}.
    """

    def __init__(self, file: Any) -> None:
        """@param file: open for writing."""
        self._write = jsonFileLogObserver(file, recordSeparator="")

    def __call__(self, event: LogEvent) -> None:
        """See L{ILogObserver}."""
        shown = {key: value for key, value in event.items() if key not in _OBJECTS}
        shown["log_text"] = eventAsText(event, includeTimestamp=False, includeSystem=False)
        self._write(shown)


_OBJECTS = ("log_logger", "log_source")
"""Of an event, what only this process can make use of."""
