"""
C{[discovery.docker]}, C{[discovery.podman]}: containers that are named by labels of their own.

Pure; what the labels say is read in L{chanproxy.config.labels}.
"""

from __future__ import annotations

import difflib
import re

from attrs import frozen

from chanproxy.config.keys import key, keysOf
from chanproxy.config.kinds import Flag, Text
from chanproxy.config.tables import Table
from chanproxy.endpoints.containers import ENGINES
from chanproxy.words import brief

_PREFIX = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
"""What Docker recommends for labels."""


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise ValueError(
            f"{brief(text)} is nothing that labels begin with: that is small letters, digits, and "
            "single dots and hyphens between them"
        )
    return text


@frozen
class Discovery:
    """
    One engine whose containers are looked at.

    @ivar name: the engine, of L{chanproxy.endpoints.containers.ENGINES}.
    @ivar byProject: those of one project of Compose are a group, if they are in no other.
    @ivar trusted: whoever writes labels, of containers and of their images, may say all that this
        file may.
    """

    name: str
    trusted: bool = key(
        False, Flag(), "Whether labels may name any socket, and not the container's own alone."
    )
    byProject: bool = key(
        False, Flag(), "Whether all containers of one project of Compose wake together."
    )
    prefix: str = key("chanproxy", Text(_prefix, "chanproxy"), "What the labels begin with.")


KEYS = keysOf(Discovery)


def readDiscovery(top: Table) -> tuple[Discovery, ...]:
    """What the configuration says; what is wrong with it is noted."""
    found = []
    for name, table in top.tables("discovery"):
        values = table.readAll(KEYS)
        table.end()
        if name in ENGINES:
            found.append(Discovery(name, **values))
        else:
            near = difflib.get_close_matches(name.lower()[:40], ENGINES, 1)
            known = " or ".join(f"[discovery.{each}]" for each in near or ENGINES)
            table.note(None, "is no engine that is known", f"write {known}")
    return tuple(found)
