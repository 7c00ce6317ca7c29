"""
Setting: keys of one container that are changed while it runs, without any file.

Pure; what follows from it is done elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from attrs import evolve

from chanproxy.adopt.deadlines import ALL as EVERY
from chanproxy.adopt.deadlines import IGNORE
from chanproxy.config.adoption import KEYS as ADOPTION
from chanproxy.config.adoption import WAKE_ON
from chanproxy.config.changes import differing, needingAnew
from chanproxy.config.containers import KEYS, Container
from chanproxy.config.keys import Key
from chanproxy.config.problems import ConfigurationError, Problem
from chanproxy.config.reading import fromTree
from chanproxy.config.tables import join

_FIXED = (
    *("freezer", WAKE_ON.name, "control", "channels"),
    *("on-demand", "start-limit", "stop-after"),
)
"""What a container is made with, what listens for it, and what goes with that."""

_ALL = {each.name: (at, each) for keys in (KEYS, ADOPTION) for at, each in keys.items()}

SETTABLE = tuple(name for name in _ALL if name not in _FIXED)
"""Names of the keys that can be set."""

_REMEDY = (
    "write it into the file, and have that followed (chanproxy reload); one that was added by a "
    "call is removed, and added with it"
)


class Setting(NamedTuple):
    """
    A key that has another value than before; both are as C{chanproxy set} takes them.

    @ivar key: its name.
    """

    key: str
    before: str
    now: str


def settings(before: Container, now: Container) -> tuple[Setting, ...]:
    """In what two tables of a container differ, as far as that can be set."""
    return tuple(
        Setting(name, _shown(key, _value(before, at)), _shown(key, _value(now, at)))
        for name, (at, key) in _ALL.items()
        if name in SETTABLE and _value(before, at) != _value(now, at)
    )


def adjusted(
    table: Container, written: Container, given: Mapping[str, Any], back: Collection[str]
) -> Container:
    """
    A table with some keys as they are given.

    @param table: the one in force.
    @param written: the one of the file, or of the call that added it.
    @param given: by the keys' names, as in a file.
    @param back: names of keys that are to be again as they are written.
    @raise ConfigurationError: all that is wrong, as of a file; or what cannot change while it runs.
    """
    path = join("containers", table.name)
    fixed = [name for name in given if name in _FIXED]
    if fixed:
        wrong = "cannot be set while the container is there"
        raise ConfigurationError([Problem(join(path, each), wrong, _REMEDY) for each in fixed])
    wakeOn = "channels" if table.adoption is None else "sockets"
    tree = {**given, "freezer": table.freezer, WAKE_ON.name: wakeOn}
    (read,) = fromTree({"containers": {table.name: tree}}).containers
    after = overlaid(overlaid(table, read, given), written, back)
    keys = differing(table, after)
    anew = needingAnew(table, after, keys)
    if anew:
        wrong = "cannot be set while the container is there: "
        wrong += "a dry run is made as such, and holds what it was made with"
        raise ConfigurationError([Problem(join(path, each), wrong, _REMEDY) for each in anew])
    return after


def asSet(table: Container, written: Container, now: Container) -> Container:
    """A table with those keys as they are now that were set since it was as it is written."""
    return overlaid(table, now, [each.key for each in settings(written, now)])


def overlaid(table: Container, other: Container, names: Collection[str]) -> Container:
    """A table with some keys of another one."""
    own = {at: getattr(other, at) for at, key in KEYS.items() if key.name in names}
    if table.adoption is not None and other.adoption is not None:
        theirs = {
            at: getattr(other.adoption, at) for at, key in ADOPTION.items() if key.name in names
        }
        own["adoption"] = evolve(table.adoption, **theirs)
    return evolve(table, **own)


def _value(table: Container, attribute: str) -> Any:
    """Of a key that is about its own sockets, None where it has none."""
    return getattr(table if attribute in KEYS else table.adoption, attribute, None)


def _shown(key: Key, value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    if key is ADOPTION["timeouts"]:
        return {EVERY: "all", IGNORE: "ignore"}.get(value, f"{value:.15g}s")
    return key.kind.shown(value).strip('"')
