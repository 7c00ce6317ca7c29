"""
C{chanproxy events}: what became of the latest suspends, in plain words; and of those to come.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from attrs import define, field, frozen

from chanproxy.commands.asked import Pending, Service, answered
from chanproxy.commands.asking import asking, containersArgument, jsonOption
from chanproxy.commands.showing import Moment, duration, jsonLine
from chanproxy.commands.where import Where, whereOptions
from chanproxy.guest import CallRefused, GuestError, ServiceGone
from chanproxy.words import safe, spelled

LOOK = 2.0
"""Seconds between looks at all containers, for attempts that fail, and containers that are new."""

PAUSE = 0.05
"""Seconds between looks at one that falls asleep and wakes again and again."""

RETRY = 0.5
"""Seconds until the next try, when the service has gone."""

WATCHED = 16
"""
Containers of which one hears at once; of others with the next look.  Each takes one of the
connections that a user may have.
"""


@frozen
class Event:
    """
    One of the ring.

    @ivar at: nanoseconds (C{CLOCK_BOOTTIME}).
    @ivar unix: Unix time, seconds.
    @ivar begun: of what ends a sleep: when the attempt began; None: it is not known any more.
    """

    name: str
    at: int
    unix: float
    kind: str
    reason: str
    begun: int | None = None

    def words(self) -> str:
        """For people."""
        if self.kind == "attempt":
            return "goes to sleep"
        if self.kind == "lost":
            return f"({self.reason})"
        if self.kind == "fail":
            return f"stays awake: {spelled(self.reason)}"
        after = "" if self.begun is None else f" after {duration((self.at - self.begun) / 1e9)}"
        return f"wakes{after}: {spelled(self.reason)}"

    def fields(self) -> dict[str, Any]:
        """For programs."""
        return {"name": self.name, "at": self.unix, "kind": self.kind, "reason": self.reason}


_UNSETTLED = (("attempt", "suspending"), ("resume", "resuming"))
"""Kinds of events, and states in which it is not known yet what becomes of them, or why it was."""


@define
class Ring:
    """
    The events of one container: which are told already.

    @ivar name: of the container.
    """

    name: str
    _attempts: int = -1
    _told: int = -1
    _begun: int | None = None

    def isBehind(self, details: Mapping[str, Any]) -> bool:
        """Whether there is something new, by the figures of a list of containers."""
        return bool(details["attempt_count"] != self._attempts or details["last_wake"] > self._told)

    def restart(self) -> None:
        """Another service counts anew."""
        self._attempts = -1

    def news(self, description: Mapping[str, Any]) -> Iterator[Event]:
        """
        What is new in a description; what an attempt comes to has to be known.

        An attempt that failed is one event for people, its failure: see L{Event.kind}.
        """
        moment = Moment(description["now"])
        figures = description["statistics"]
        self._attempts = figures["attempt_count"]
        ring = [event for event in description["events"] if event["at"] > self._told]
        lost = ring == description["events"] and figures["counted_since"] < self._told
        if ring and (ring[-1]["kind"], description["state"]) in _UNSETTLED:
            ring.pop()
            self._attempts = -1
        if lost and ring:
            at, why = ring[0]["at"], "there were more events than the service keeps"
            yield Event(self.name, at, moment.unixOf(at), "lost", why)
        for event in ring:
            self._told, kind = event["at"], event["kind"]
            yield Event(
                *(self.name, event["at"], moment.unixOf(event["at"]), kind, event["reason"]),
                begun=self._begun if kind == "resume" else None,
            )
            self._begun = event["at"] if kind == "attempt" else None


def told(events: Sequence[Event]) -> list[Event]:
    """Those that people are told: an attempt that failed is its failure."""
    after: dict[str, str] = {}
    shown = []
    for event in reversed(events):
        if event.kind != "attempt" or after.get(event.name) != "fail":
            shown.append(event)
        after[event.name] = event.kind
    return shown[::-1]


@define
class _Printer:
    asJson: bool
    _wide: int = 0

    def show(self, events: Sequence[Event], most: int | None = None) -> None:
        """@param most: only the latest, so many."""
        shown = list(events) if self.asJson else told(events)
        if most is not None:
            shown = shown[max(len(shown) - most, 0) :]
        self._wide = max([self._wide, *(len(event.name) for event in shown)])
        for event in shown:
            if self.asJson:
                jsonLine(event.fields())
                continue
            whole = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.unix))
            at = f"{whole}.{int(event.unix % 1 * 1000):03}"
            click.echo(safe(f"{at}  {event.name.ljust(self._wide)}  {event.words()}"))


@define
class _Follower:
    """
    Tells what happens, as long as somebody wants to hear it; services come and go meanwhile.

    @ivar names: of those that are followed; empty: all.
    """

    _service: Service
    _names: Sequence[str]
    _printer: _Printer
    _rings: dict[str, Ring]
    _watches: dict[str, Pending] = field(factory=dict)
    _gone: bool = False

    def follow(self) -> None:
        """Until interrupted."""
        while True:
            try:
                self._round()
            except ServiceGone as error:
                self._lost(str(error))
                time.sleep(RETRY)

    def _round(self) -> None:
        """Look at all whose figures have changed, then hear of some for a while."""
        found, _, _ = self._service.containers()
        if self._gone:
            self._gone = False
            click.echo("chanproxy: the service is there again", err=True)
        shown = [each for each in found if not self._names or each["name"] in self._names]
        for entry in shown:
            if not self._watch(entry["name"]):
                break
        self._look([e["name"] for e in shown if self._ringOf(e["name"]).isBehind(e["details"])])
        end = time.monotonic() + LOOK
        while (left := end - time.monotonic()) > 0:
            self._look(self._heard(left))
            time.sleep(PAUSE)

    def _ringOf(self, name: str) -> Ring:
        return self._rings.setdefault(name, Ring(name))

    def _watch(self, name: str) -> bool:
        """Hear of one from now on; false where there is no room for more: there are the looks."""
        if name in self._watches:
            return True
        if len(self._watches) >= WATCHED:
            return False
        watch = self._service.begin("RegisterWakeWatcher", more=True, container=name)
        self._watches[name] = watch
        try:
            watch.answer()
        except BaseException as error:
            self._watches.pop(name).close()
            if not isinstance(error, CallRefused):
                raise
            return error.error == "ContainerNotFound"
        return True

    def _heard(self, timeout: float) -> list[str]:
        """
        Whose state has changed.

        @raise ServiceGone: the service has, and nothing else would tell; or it has dropped us.
        """
        if not self._watches:
            time.sleep(timeout)
            return []
        names = {watch: name for name, watch in self._watches.items()}
        heard = []
        for watch in answered(names, timeout):
            try:
                watch.answer()
                heard.append(names[watch])
            except GuestError as error:
                # The container has gone, or the service; or it has dropped us.
                self._watches.pop(names[watch]).close()
                if isinstance(error, ServiceGone) and not self._service.standing:
                    # The next service may be there before anything else tells.
                    raise
        return heard

    def _look(self, names: Sequence[str]) -> None:
        events: list[Event] = []
        try:
            for description in self._service.described(names):
                events += self._ringOf(description["name"]).news(description)
        finally:
            # What has been told of others is not told again.
            self._printer.show(sorted(events, key=lambda event: event.at))

    def _lost(self, why: str) -> None:
        self.close()
        for ring in self._rings.values():
            ring.restart()
        if not self._gone:
            self._gone = True
            click.echo(safe(f"chanproxy: {why}; waiting for the next one"), err=True)

    def close(self) -> None:
        """Hear no more.  Idempotent."""
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()


@click.command("events")
@whereOptions
@jsonOption
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="How many of the latest.",
)
@containersArgument
def events(where: Where, asJson: bool, follow: bool, lines: int, names: tuple[str, ...]) -> None:
    """
    Show when containers went to sleep and woke, and why.

    Of all, or of these NAMEs.  The service keeps the last 128 events of each.  With --follow a
    service may end, and the next one is waited for.
    """
    printer = _Printer(asJson)
    with asking(where) as service:
        found, _, _ = service.some(names)
        rings = {each["name"]: Ring(each["name"]) for each in found}
        known: list[Event] = []
        for description in service.described(list(rings)):
            known += rings[description["name"]].news(description)
        printer.show(sorted(known, key=lambda event: event.at), lines)
        if follow:
            follower = _Follower(service, names, printer, rings)
            try:
                follower.follow()
            finally:
                follower.close()
