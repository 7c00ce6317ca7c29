"""
C{chanproxy top}: what all containers do, again and again; with keys to suspend and to wake them.
"""

from __future__ import annotations

import itertools
import time
from functools import partial
from typing import Any

import click

from chanproxy.commands.asked import Pending, Service
from chanproxy.commands.asking import asking, jsonOption
from chanproxy.commands.reasons import Reasons, byCommand
from chanproxy.commands.rows import Row
from chanproxy.commands.showing import Moment, duration, jsonLine
from chanproxy.commands.where import Where, whereOptions
from chanproxy.guest import AlreadySuspended, CallRefused, GuestError, ServiceGone
from chanproxy.words import listed

PATIENCE = 3.0
"""Seconds without an answer, after which there is said to be none; no key is heard meanwhile."""

DONE = {
    "SuspendContainer": "suspended",
    "ResumeContainer": "woken",
    "PauseContainer": "paused",
    "UnpauseContainer": "woken",
}
"""What a container is then."""


class _Top:
    """Somebody looks at the board, and types."""

    def __init__(self, service: Service, interval: float) -> None:
        # What draws is loaded where something is drawn.
        from chanproxy.commands.board import Board
        from chanproxy.commands.terminal import Terminal

        self._service = service
        self._interval = interval
        self._terminal = Terminal()
        self._board = Board(service.place)
        self._opened: str | None = None
        self._asked: dict[int, tuple[Pending, str, str]] = {}

    def run(self, count: int | None) -> None:
        """
        Until a key or a signal says so.

        @param count: looks; None: any number.
        """
        with self._terminal.taken():
            try:
                for _ in range(count) if count is not None else itertools.count():
                    self._look()
                    if not self._untilNext():
                        return
            finally:
                for pending, _, _ in self._asked.values():
                    pending.close()

    def _look(self) -> None:
        try:
            found, now, _ = self._service.containers()
            moment = Moment(now)
            self._board.show([Row.of(entry, moment) for entry in found], moment)
            self._lookInside()
        except GuestError as error:
            self._board.lost(str(error))

    def _lookInside(self) -> None:
        if self._opened is None:
            return
        try:
            self._board.open(Reasons(self._service.describe(self._opened)).sentences())
        except CallRefused as error:
            # It has gone.
            self._close()
            self._board.say(str(error))

    def _untilNext(self) -> bool:
        """Draw, and do what the keys say, until it is time to look again; false: it is the end."""
        end = time.monotonic() + self._interval
        while True:
            self._draw()
            left = end - time.monotonic()
            if left <= 0:
                return True
            others = {fd: partial(self._answered, fd) for fd in self._asked}
            for key in self._terminal.wait(left, others):
                if not self._key(key):
                    return False
            if self._terminal.ending:
                return False

    def _draw(self) -> None:
        self._terminal.draw(self._board.drawn(*self._terminal.size))

    def _key(self, key: str) -> bool:
        """Do what a key says; false: quit."""
        name = self._opened or self._board.chosen
        if key == "q":
            return False
        if key in ("escape", "backspace"):
            self._close()
        elif key == "s" and name is not None:
            self._begin("SuspendContainer", name)
        elif key == "r" and name is not None:
            self._begin("ResumeContainer", name, reason=byCommand("resume"))
        elif key == "z" and name is not None:
            if self._board.isPaused(name):
                self._begin("UnpauseContainer", name, reason=byCommand("unpause"))
            else:
                self._begin("PauseContainer", name, by=byCommand("pause"))
        elif key == "enter" and name is not None:
            self._opened = name
            self._look()
        else:
            self._board.key(key, self._terminal.size[1])
        return True

    def _close(self) -> None:
        self._opened = None
        self._board.open(None)

    def _begin(self, method: str, name: str, **parameters: Any) -> None:
        try:
            pending = self._service.begin(method, container=name, **parameters)
        except GuestError as error:
            self._board.say(str(error))
            return
        self._board.say("")
        self._asked[pending.fileno()] = pending, method, name

    def _answered(self, descriptor: int) -> None:
        pending, method, name = self._asked.pop(descriptor)
        suspending = method == "SuspendContainer"
        did = DONE[method]
        try:
            told = pending.answer()
        except AlreadySuspended as error:
            # As for the command: no error.
            self._board.say(f"{name} is {error.parameters.get('state', 'asleep')} already")
        except CallRefused as error:
            self._board.say(f"{name} is not {did}: {error}")
        except ServiceGone as error:
            self._board.say(str(error))
        else:
            if suspending:
                slept, reasons = duration(told["suspend_time"] / 1e9), told["resume_reasons"]
                self._board.say(f"{name} slept for {slept}, and was woken by {listed(reasons)}")
            self._look()
        finally:
            pending.close()


def _print(service: Service, interval: float, count: int | None) -> None:
    """Lines of JSON, as long as somebody wants them."""
    for number in itertools.count():
        if count is not None and number >= count:
            return
        if number:
            time.sleep(interval)
        try:
            found, now, _ = service.containers()
        except ServiceGone as error:
            if not number:
                raise
            jsonLine({"at": time.time(), "error": str(error), "containers": []})
            continue
        moment = Moment(now)
        rows = [Row.of(entry, moment).fields() for entry in found]
        jsonLine({"at": moment.unix, "error": None, "containers": rows})


@click.command("top")
@whereOptions
@jsonOption
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="From one look to the next.",
)
@click.option("--count", type=click.IntRange(min=1), help="Looks, after which it ends.")
def top(where: Where, asJson: bool, interval: float, count: int | None) -> None:
    """
    Show what all containers do, again and again.

    Keys suspend, wake and explain them; they are on the last line.  The service may end: the next
    one is shown when it is there.
    """
    with asking(where, patience=PATIENCE) as service:
        if asJson:
            _print(service, interval, count)
            return
        from chanproxy.commands.terminal import NoTerminal

        try:
            # Whoever has no service to look at is told so where it can be read.
            service.containers()
            _Top(service, interval).run(count)
        except NoTerminal as error:
            raise click.UsageError(f"{error}; use --json, or chanproxy ps") from None
