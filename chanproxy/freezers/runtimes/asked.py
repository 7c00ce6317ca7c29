"""
Asked: what an engine is asked again and again, one question at a time.

Whatever has changed while it answers is asked for once more; what cannot be answered, some seconds
later.  Knows no containers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy.freezers.runtimes.engine import AWAY, Answer, Engine, reasonOf

T = TypeVar("T")


SETTLES = 0.5
"""
Seconds after an event until it is asked once more: Docker tells of a new name, and may answer with
the old one for some milliseconds.
"""


@define(eq=False)
class Asked(Generic[T]):
    """
    One question.

    @ivar name: what it is about, for the log.
    """

    _engine: Engine
    name: str
    _path: str
    _parse: Callable[[Answer], T]
    _told: Callable[[T], None]
    _asking: Deferred[Any] | None = None
    _again: bool = False
    _call: IDelayedCall | None = None
    _settling: IDelayedCall | None = None
    _ended: bool = False
    _logged: str = ""

    _log = Logger()

    def happened(self) -> None:
        """Something has, which changes it; whether the engine answers so at once is not known."""
        self.ask()
        if self._settling is not None:
            self._settling.reset(SETTLES)
        elif not self._ended:
            self._settling = self._engine.reactor.callLater(SETTLES, self._settled)

    def _settled(self) -> None:
        self._settling = None
        self.ask()

    def ask(self) -> None:
        """It may have changed."""
        if self._ended:
            return
        if self._asking is not None:
            self._again = True
            return
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        self._asking = asking = self._engine.ask(self._path).addCallback(self._parse)
        asking.addCallbacks(self._answered, self._failed)
        asking.addErrback(lambda failure: self._log.failure("an engine's answer", failure))

    def end(self) -> None:
        """Ask no more, and tell no more.  Idempotent."""
        self._ended = True
        for call in (self._call, self._settling):
            if call is not None:
                call.cancel()
        self._call = self._settling = None
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    def _answered(self, answer: T) -> None:
        self._asking = None
        if self._ended:
            return
        if self._again:
            self._again = False
            self.ask()
            return
        self._logged = ""
        self._told(answer)

    def _failed(self, failure: Failure) -> None:
        self._asking = None
        if self._ended:
            return
        self._again = False
        if not self._engine.connected:
            # It says so itself, and when it is there again, so does it that.
            return
        why = reasonOf(failure)
        if why != self._logged:
            # Once, however often it is asked.
            self._logged = why
            self._log.info(
                "{name} cannot be asked after at {host}: {why}",
                name=self.name,
                host=self._engine.host,
                why=why,
            )
        self._call = self._engine.reactor.callLater(AWAY[1], self._askAgain)

    def _askAgain(self) -> None:
        self._call = None
        self.ask()
