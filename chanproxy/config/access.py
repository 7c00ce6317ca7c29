"""
C{[access.NAME]}: who may call methods, for which containers.

Pure; who they are is looked up later.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

import attrs
from attrs import NOTHING, frozen

from chanproxy.config.keys import Key, key, keysOf
from chanproxy.config.kinds import (
    Flag,
    Items,
    sort,
)
from chanproxy.config.tables import Table
from chanproxy.words import Wrong, brief, meant, written

_IDENTIFIERS = 2**32 - 2
"""The largest user or group; the kernel keeps the one after it for none."""


def _identifier(value: Any) -> str | int:
    """A user or a group, by name or number."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"holds {sort(value)}")
    if value == "" or (isinstance(value, int) and not 0 <= value <= _IDENTIFIERS):
        raise ValueError(f"holds {brief(value)}, which is no name and no number of one")
    return value


def _containers(there: Collection[str]) -> Items:
    def container(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"holds {sort(value)}")
        # Without any container that is the problem, and reported.
        if there and value != "*" and value not in there:
            near = meant(value, there, "there are")
            better = difflib.get_close_matches(value.lower()[:200], there, 1)
            raise Wrong(f"holds {brief(value)}, which is no container ({near})", *better)
        return value

    named = f"{written([next(iter(there))])}, or " if there else ""
    return Items(container, f"{named}['*'] for all")


@frozen
class AccessEntry:
    """
    C{[access.NAME]}: who may call methods for some containers.

    @ivar users: names and numbers, not looked up.
    @ivar groups: likewise.
    @ivar containers: names; C{*} stands for all.
    @ivar trusted: they may share a counter of these containers.
    """

    name: str
    users: tuple[str | int, ...] = key(
        (), Items(_identifier, "['root', 1000]", "list of names and numbers"), "Who may."
    )
    groups: tuple[str | int, ...] = key(
        (), Items(_identifier, "['root', 100]", "list of names and numbers"), "Whose members may."
    )
    containers: tuple[str, ...] = ()
    trusted: bool = key(False, Flag(), "Whether they may share a counter.")


KEYS = keysOf(AccessEntry)

_CONTAINERS = Key("containers", _containers(()), "For which containers.", NOTHING)

ALL = (*KEYS.values(), _CONTAINERS)
"""All keys of an entry's table."""


def readAccess(name: str, table: Table, there: Collection[str]) -> AccessEntry:
    """
    An entry's table.

    @param there: names of containers.
    """
    before = table.noted
    values = table.readAll(KEYS)
    containers = attrs.evolve(_CONTAINERS, kind=_containers(there))
    entry = AccessEntry(name, containers=table.read(containers) or (), **values)
    if not entry.users and not entry.groups and table.noted == before:
        table.note(None, "names no user and no group", "write for example users = ['root', 1000]")
    table.end()
    return entry
