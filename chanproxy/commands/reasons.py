"""
Reasons: why a container is awake, or asleep and until when, in whole sentences and in fields.

Knows what the manager answers, and nothing of how that is printed.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from chanproxy.commands.rows import SLEEPS, shareAsleep
from chanproxy.commands.showing import Moment, duration, percent
from chanproxy.words import spelled

SHOWN = 20
"""Sources that are told of; it may be thousands."""

SIGNALS = {
    "told": "A signal for one of its processes wakes it at once.",
    "looked_for": "A signal for one of its processes wakes it, within a quarter of a second as a "
    "rule.",
    "never": "A signal for one of its processes does not wake it: they are not looked for.",
}
"""How signals are noticed, by the manager's word for it."""

ON_ITS_WAY = {"suspending": "It is about to sleep.", "resuming": "It is being woken."}
"""States that last for some milliseconds, as a rule."""

Tree = Mapping[str, Any]


def userName(uid: int) -> str:
    """What people call a user."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def byCommand(verb: str) -> str:
    """Who does it, by a command of that name, for those who look later."""
    return f"chanproxy {verb} ({userName(os.getuid())})"


def holderOf(holder: Tree) -> str:
    """Who holds a lock, in a few words; empty when it is not known."""
    if "uid" not in holder:
        return ""
    user = f"user {userName(holder['uid'])}"
    if "pid" not in holder:
        return f"a process of {user}"
    process = f"process {holder['pid']}, {user}"
    return f"{holder['command']} ({process})" if holder["command"] else process


class Reasons:
    """What is known of one container at one moment."""

    def __init__(self, description: Tree) -> None:
        """@param description: as C{Describe} gives it, just now."""
        self._its = description
        self._moment = Moment(description["now"])
        self._active = [source for source in description["sources"] if source["active"]]

    @property
    def _sleeps(self) -> bool:
        return self._its["state"] in SLEEPS

    # For people.

    def sentences(self) -> list[str]:
        """
        All of it; parts of a list begin with two spaces.
        """
        its = self._its
        state = "asleep" if self._sleeps else "awake"
        begun = f"for {self._for(its['since'])}, since {self._at(its['since'])}"
        first = [f"{its['name']} has been {state} {begun}."]
        if its["state"] in ON_ITS_WAY:
            first.append(ON_ITS_WAY[its["state"]])
        if "paused" in its:
            by, since = its["paused"]["by"], its["paused"]["since"]
            first.append(f"It was paused by {by} {self._for(since)} ago, at {self._at(since)}.")
            first.append(
                "Nothing wakes it until it is unpaused (chanproxy unpause); what comes waits."
            )
        if its["mode"] == "dry_run":
            first.append("That is a dry run (suspend = dry-run): nothing is stopped.")
        first += [
            f"{each['key']} was set while it runs: it is {each['now']}, and {each['before']} is "
            "written."
            for each in its["settings"]
        ]
        if "paused" in its:
            why: Iterable[str] = ()
        else:
            why = self._whyAsleep() if self._sleeps else self._whyAwake()
        return [*first, *why, *self._past()]

    def _for(self, since: int) -> str:
        return duration(self._moment.ago(since))

    def _at(self, instant: int) -> str:
        return self._moment.local(self._moment.unixOf(instant))

    def _in(self, instant: int) -> str:
        return f"in {duration(-self._moment.ago(instant))}, at {self._at(instant)}"

    def _whyAwake(self) -> Iterator[str]:
        for source in self._active[:SHOWN]:
            yield from self._keepsAwake(source)
        if len(self._active) > SHOWN:
            yield f"So do {len(self._active) - SHOWN} other wake sources."
        if not self._active and self._its["why_awake"]:
            yield f"It stays awake: {self._its['why_awake']}."
        elif not self._active and self._its["state"] == "awake":
            yield "Nothing is known that keeps it awake: it has just been looked at."
        if self._active and self._its["mode"] in ("manual", "off"):
            word = self._its["mode"]
            when = "only when somebody asks for it" if word == "manual" else "never"
            yield f"It is suspended {when} (suspend = {word})."

    def _keepsAwake(self, source: Tree) -> Iterator[str]:
        name, lasts = source["name"], self._for(source["active_since"])
        if source["kind"] == "counter":
            count = source.get("unhandled", 1)
            if source.get("counts") == "connections":
                what = "connection has" if count == 1 else "connections have"
                yield (
                    f"{count} {what} just come or ended on {name}: that keeps it awake for its "
                    "linger time."
                )
                return
            what = "1 message is" if count == 1 else f"{count} messages are"
            yield f"{what} not handled on {name}: that keeps it awake, for {lasts} so far."
        elif source["kind"] == "lock":
            yield f'The wake lock "{name}" keeps it awake, for {lasts} so far.'
            yield from self._heldBy(source)
        else:
            yield f'The wake source "{name}" is signalled, for {lasts}: that keeps it awake.'

    def _heldBy(self, lock: Tree) -> Iterator[str]:
        for holder in lock["holders"]:
            who = holderOf(holder)
            until = ""
            if "until" in holder:
                until = f"; it ends by itself {self._in(holder['until'])}"
            if holder["lifetime"] == "connection" and who:
                yield f"It is held by {who}{until}."
            elif who:
                yield f"It was acquired by {who}, and is held until somebody releases it{until}."
            elif until:
                yield f"{until.removeprefix('; ').capitalize()}."
        more = lock["holder_count"] - len(lock["holders"])
        if more:
            yield f"{more} others hold it, too."

    def _whyAsleep(self) -> Iterator[str]:
        wakers = list(self._wakers())
        if self._its.get("breathing"):
            yield "It breathes: it runs for a moment, and what wakes it is seen again after that."
        elif wakers:
            yield "It wakes as soon as one of these is ready:"
            yield from (f"  {waker}" for waker in wakers[:SHOWN])
            if len(wakers) > SHOWN:
                yield f"  and {len(wakers) - SHOWN} more"
        else:
            yield "It waits for no socket, channel or descriptor."
        yield from self._times()
        for alarm in self._its["alarms"][:SHOWN]:
            at, left = alarm["at"], alarm["at"] - self._moment.unix
            when = f"in {duration(left)}, at {self._moment.local(at)}"
            yield f'The alarm "{alarm["name"]}" wakes it {when}.'
        yield f"{SIGNALS[self._its['signals']]} So does a wake lock that somebody acquires."
        if self._its["passed_over"]:
            yield "Times of its own that do not wake it:"
            own = f"{self._its['name']}/"
            passed = (each.removeprefix(own) for each in self._its["passed_over"][:SHOWN])
            yield from (f"  {each}" for each in passed)

    def _wakers(self) -> Iterator[str]:
        own = f"{self._its['name']}/"
        for source in self._its["sources"]:
            if source["kind"] == "adopted":
                yield _adopted(source, source["name"].removeprefix(own))
            elif source["kind"] == "counter":
                yield f"{source['name']} (messages)"
            elif source["kind"] == "descriptor":
                yield f"{source['name']} (a descriptor)"

    def _times(self) -> Iterator[str]:
        for each in self._its["times"]:
            when, reason = self._in(each["at"]), each["reason"]
            if each["wakes"]:
                yield f"It is woken {when}, by a time: {reason}."
            elif reason == "breath":
                yield f"It breathes next {when}."
            else:
                yield f"It runs for a moment {when}, for a time of its own: {reason}."
        if not self._its["times"] and not self._its.get("breathing"):
            yield "No time wakes it but alarms." if self._its["alarms"] else "No time wakes it."

    def _past(self) -> Iterator[str]:
        figures = self._its["statistics"]
        begun = figures["counted_since"]
        if figures["last_wake"]:
            yield (
                f"It was woken last {self._for(figures['last_wake'])} ago, at "
                f"{self._at(figures['last_wake'])}, by {spelled(figures['last_wake_reason'])}."
            )
        else:
            yield "It has not been woken so far."
        failed = next((e for e in reversed(self._its["events"]) if e["kind"] == "fail"), None)
        now = not self._sleeps and not self._active
        if now and failed is not None and failed["at"] > figures["last_wake"]:
            yield (
                f"The last try to suspend it, {self._for(failed['at'])} ago, failed: "
                f"{failed['reason']}."
            )
        share = shareAsleep(self._its["state"], self._its["since"], figures, self._moment)
        yield f"It has been asleep for {percent(share)} of the time since {self._at(begun)}."

    # For programs.

    def fields(self) -> dict[str, Any]:
        """The same; times are Unix times, in seconds."""
        its, figures = self._its, self._its["statistics"]
        share = shareAsleep(its["state"], its["since"], figures, self._moment)
        sleeps = self._sleeps
        paused = its.get("paused", {}).get("by", "")
        wakers = [source for source in its["sources"] if source["kind"] != "lock"]
        return {
            "name": its["name"],
            "state": its["state"],
            "paused_by": paused,
            "breathing": its.get("breathing", False),
            "mode": its["mode"],
            "since": self._moment.unixOf(its["since"]),
            "seconds": max(self._moment.ago(its["since"]), 0.0),
            "why_awake": its["why_awake"],
            "keeps_awake": [] if sleeps else list(map(self._sourceFields, self._active)),
            "wakes_by": [_brief(source) for source in wakers] if sleeps and not paused else [],
            "times": [{**each, "at": self._moment.unixOf(each["at"])} for each in its["times"]],
            "alarms": its["alarms"],
            "passed_over": its["passed_over"],
            "signals": its["signals"],
            "settings": its["settings"],
            "last_wake": self._unixOrNone(figures["last_wake"]),
            "last_wake_reason": figures["last_wake_reason"],
            "asleep_share": share,
            "counted_since": self._moment.unixOf(figures["counted_since"]),
            "sentences": self.sentences(),
        }

    def _unixOrNone(self, instant: int) -> float | None:
        return self._moment.unixOf(instant) if instant else None

    def _sourceFields(self, source: Tree) -> dict[str, Any]:
        found = {**_brief(source), "since": self._moment.unixOf(source["active_since"])}
        if "unhandled" in source:
            found["unhandled"] = source["unhandled"]
        if source["kind"] == "lock":
            found["holders"] = holderFields(source["holders"], self._moment)
        return found


def _brief(source: Tree) -> dict[str, Any]:
    inside = {"inside": source["inside"]} if "inside" in source else {}
    return {"name": source["name"], "kind": source["kind"], **inside}


def _adopted(source: Tree, name: str) -> str:
    """What a container waits for, in words."""
    if name.endswith(" ended"):
        return f"{name.removesuffix(' ended')}, when it ends"
    inside = ", ".join(source.get("inside", ()))
    more = source.get("inside_count", 0) - len(source.get("inside", ()))
    if more > 0:
        inside = f"{inside} and {more} more" if inside else f"{more} descriptors"
    return f"{name}: {inside}" if inside else name


def holderFields(holders: Iterable[Tree], moment: Moment) -> Sequence[dict[str, Any]]:
    """Who holds a lock, for programs: Unix times, and the user's name; null: not known."""
    return [
        {
            "lifetime": holder["lifetime"],
            "since": moment.unixOf(holder["since"]),
            "until": moment.unixOf(holder["until"]) if "until" in holder else None,
            "pid": holder.get("pid"),
            "uid": holder.get("uid"),
            "user": userName(holder["uid"]) if "uid" in holder else None,
            "command": holder.get("command"),
        }
        for holder in holders
    ]
