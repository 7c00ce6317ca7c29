"""
Changes: what one configuration has that another has not, and what becomes of each key.

Pure; what follows from it is done elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Self

import attrs
from attrs import evolve, frozen

from chanproxy.config.adoption import KEYS as ADOPTION
from chanproxy.config.adoption import WAKE_ON
from chanproxy.config.channels import Channel
from chanproxy.config.containers import KEYS, Container
from chanproxy.config.limits import KEYS as LIMITS
from chanproxy.config.limits import Limits
from chanproxy.config.reading import KEYS as TOP
from chanproxy.config.reading import Configuration
from chanproxy.config.tables import join
from chanproxy.endpoints.addresses import Address
from chanproxy.endpoints.paths import SeqpacketAddressSpec

FIXED = (
    *("control", "varlink", "http", "httpTokenFile", "log"),
    *("scheduling", "history", "watchdog", "confine", "discovery"),
)
"""Keys and tables of the file that hold as long as the service runs, by attributes."""

FIXED_LIMITS = (
    *("messageBytes", "messageDescriptors", "controlBytes", "endpointBuffer"),
    *("cgroups", "cgroupDepth", "processes"),
)
"""Likewise of the limits: buffers are made with them, and freezers."""

_DRY = "dry-run"


@frozen
class Piece:
    """
    What is started and stopped as a whole: a container, or what listens for one that stays.

    @ivar container: its name.
    @ivar what: the container itself, one of its channels, or its own control socket.
    """

    container: str
    what: Container | Channel | SeqpacketAddressSpec

    @property
    def isContainer(self) -> bool:
        """Whether it is a container with all that listens for it."""
        return isinstance(self.what, Container)

    @property
    def path(self) -> str:
        """Where it stands in the file."""
        path = join("containers", self.container)
        if isinstance(self.what, Container):
            return path
        if isinstance(self.what, Channel):
            return join(f"{path}.channels", self.what.name)
        return f"{path}.control"

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it listens."""
        if isinstance(self.what, Container):
            return tuple(at for each in piecesOf(self.what) for at in each.addresses)
        return (self.what.listen if isinstance(self.what, Channel) else self.what,)


def piecesOf(container: Container) -> list[Piece]:
    """What listens for it."""
    pieces = [Piece(container.name, each) for each in container.channels]
    if container.control is not None:
        pieces.append(Piece(container.name, container.control))
    return pieces


@frozen
class Changed:
    """
    What became of a container that is in both.

    @ivar applied: its keys that hold from now on.
    @ivar channels: its channels that were added, removed, or made anew.
    @ivar anew: the keys for which all of it was made anew; none: it was not.
    """

    name: str
    applied: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """In words."""
        if self.anew:
            return f"container {self.name}: made anew, because of {', '.join(self.anew)}"
        channels = [f"channels.{each}" for each in self.channels]
        return f"container {self.name}: changed: {', '.join([*self.applied, *channels])}"


@frozen
class Reloaded:
    """
    What became of a configuration.

    @ivar added: containers.
    @ivar removed: likewise.
    @ivar changed: those that are in both, and differ.
    @ivar applied: other keys that hold from now on.
    @ivar restart: other keys that differ, and hold from the next start on.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[Changed, ...] = ()
    applied: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()

    @classmethod
    def fromTree(cls, tree: Mapping[str, Any]) -> Self:
        """What a call has answered."""
        changed = [
            Changed(*(each[a.name] for a in attrs.fields(Changed))) for each in tree["changed"]
        ]
        return cls(tree["added"], tree["removed"], tuple(changed), tree["applied"], tree["restart"])

    def sentences(self) -> Iterator[str]:
        """In words; none: nothing differs."""
        for name in self.added:
            yield f"container {name}: added"
        for name in self.removed:
            yield f"container {name}: removed"
        for each in self.changed:
            yield each.sentence
        for key in self.applied:
            yield f"{key}: changed"
        if self.restart:
            yield f"{', '.join(self.restart)}: needs a restart of the service; as before till then"


class Difference:
    """
    What leads from one configuration to another.

    @ivar leaving: what runs, and is to stop.
    @ivar entering: what is to run, and does not.
    @ivar kept: containers that go on, as they were and as they are to be.
    @ivar inForce: the other one, but with what holds as long as the service runs.
    @ivar reloaded: all of it, for people.
    """

    def __init__(self, old: Configuration, new: Configuration, there: Collection[str]) -> None:
        """@param there: containers of the old one that run; any may have been removed since."""
        self.leaving: list[Piece] = []
        self.entering: list[Piece] = []
        self.kept: list[tuple[Container, Container]] = []
        before = {each.name: each for each in old.containers if each.name in there}
        names = {each.name for each in new.containers}
        removed = [name for name in before if name not in names]
        self.leaving += [Piece(name, before[name]) for name in removed]
        added, changed = [], []
        for container in new.containers:
            known = before.get(container.name)
            if known is None:
                added.append(container.name)
                self.entering.append(Piece(container.name, container))
            elif known != container:
                changed.append(self._change(known, container))
        every = [at for each in (*self.leaving, *self.entering) for at in each.addresses]
        self._wide = [address for address in every if address.isWide]
        closed = (address for each in self.leaving for address in each.addresses)
        self._closed = {address.socketAmong(self._wide) for address in closed} - {None}
        fixed = [name for name in FIXED if getattr(old, name) != getattr(new, name)]
        limits = [name for name in LIMITS if getattr(old.limits, name) != getattr(new.limits, name)]
        stay = {name: getattr(old.limits, name) for name in FIXED_LIMITS}
        self.inForce = evolve(
            new,
            limits=evolve(new.limits, **stay),
            **{name: getattr(old, name) for name in FIXED},
        )
        self.reloaded = Reloaded(
            tuple(added),
            tuple(removed),
            tuple(changed),
            (
                *(_limit(name) for name in limits if name not in FIXED_LIMITS),
                *(("access",) if old.access != new.access else ()),
            ),
            (*map(_name, fixed), *(_limit(name) for name in limits if name in FIXED_LIMITS)),
        )

    def closes(self, address: Address) -> bool:
        """Whether that is where something listens which is to stop."""
        return address.socketAmong(self._wide) in self._closed

    @property
    def limits(self) -> Limits:
        """Those that hold from now on."""
        return self.inForce.limits

    def _change(self, old: Container, new: Container) -> Changed:
        keys = differing(old, new)
        anew = needingAnew(old, new, keys)
        if anew:
            self.leaving.append(Piece(old.name, old))
            self.entering.append(Piece(new.name, new))
            return Changed(new.name, anew=tuple(anew))
        self.kept.append((old, new))
        before, after = ({p.path: p for p in piecesOf(each)} for each in (old, new))
        leaving = [piece for path, piece in before.items() if after.get(path) != piece]
        entering = [piece for path, piece in after.items() if before.get(path) != piece]
        self.leaving += leaving
        self.entering += entering
        channels = [p.what.name for p in (*leaving, *entering) if isinstance(p.what, Channel)]
        return Changed(new.name, tuple(keys), tuple(dict.fromkeys(channels)))


def _name(attribute: str) -> str:
    return TOP[attribute].name if attribute in TOP else attribute


def _limit(attribute: str) -> str:
    return f"limits.{LIMITS[attribute].name}"


def differing(old: Container, new: Container) -> list[str]:
    """Keys of a container, but for its channels, in which two differ."""
    found = [key.name for at, key in KEYS.items() if getattr(old, at) != getattr(new, at)]
    if old.adoption is None or new.adoption is None:
        return found + ([WAKE_ON.name] if old.adoption != new.adoption else [])
    ours, theirs = old.adoption, new.adoption
    return found + [
        key.name for at, key in ADOPTION.items() if getattr(ours, at) != getattr(theirs, at)
    ]


def needingAnew(old: Container, new: Container, keys: Sequence[str]) -> list[str]:
    """Those of some keys, in which two differ, for which all of it is made anew."""
    if old.suspend == new.suspend == _DRY:
        # Nothing of it is frozen, and it holds what it was made with.
        return list(keys)
    made = [KEYS["freezer"].name, WAKE_ON.name]
    if _DRY in (old.suspend, new.suspend):
        made.append(KEYS["suspend"].name)
    return [key for key in keys if key in made]
