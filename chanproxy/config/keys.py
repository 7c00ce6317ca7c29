"""
Keys: one line says what may be written for one, in which range, and what it is for.

From these lines come the reader of the file, the parameters of C{AddContainer}, the options of the
commands, and the tables in the documentation.  Pure; knows no key of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs
from attrs import frozen

from chanproxy.config.kinds import Kind


@frozen
class Key:
    """
    One of a table.

    @ivar name: as it is written.
    @ivar sentence: what it is for, where there is room for one line.
    @ivar default: what it is without; C{attrs.NOTHING}: it is required.
    @ivar otherwise: what is said of the default, where it depends on others.
    @ivar option: whether it is an option on a command line.
    """

    name: str
    kind: Kind
    sentence: str
    default: Any
    otherwise: str = ""
    option: bool = True

    @property
    def parameter(self) -> str:
        """What it is called in a call of the manager: Varlink's words have no hyphen."""
        return self.name.replace("-", "_")

    @property
    def required(self) -> bool:
        """Whether it has to be there."""
        return self.default is attrs.NOTHING

    @property
    def shownDefault(self) -> str:
        """Its default, for the documentation."""
        if self.otherwise:
            return self.otherwise
        if self.required:
            return "required"
        if self.default is None or self.default == ():
            return "none"
        shown = self.kind.shown(self.default)
        return f"`{shown}`" if shown[0].isalpha() or shown[0] == '"' else shown


def about(kind: Kind, sentence: str, otherwise: str = "", option: bool = True) -> dict[str, Any]:
    """The metadata of an attribute that a key is for; its parameters are those of L{Key}."""
    return {"about": (kind, sentence, otherwise, option)}


def key(default: Any, kind: Kind, sentence: str, otherwise: str = "", option: bool = True) -> Any:
    """Such an attribute; its parameters are those of L{Key}."""
    return attrs.field(default=default, metadata=about(kind, sentence, otherwise, option))


def keysOf(cls: type[Any], **described: dict[str, Any]) -> Mapping[str, Key]:
    """
    The keys of a class, by its attributes; their names are spelled with hyphens.

    @param described: what L{about} says of attributes that do not say it themselves.
    """
    found = {}
    for attribute in attrs.fields(cls):
        said = described.get(attribute.name, attribute.metadata).get("about")
        if said is not None:
            default = attribute.default
            if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # it is a class
                default = default.factory()
            kind, sentence, otherwise, option = said
            found[attribute.name] = Key(
                hyphened(attribute.name), kind, sentence, default, otherwise, option
            )
    return found


def hyphened(attribute: str) -> str:
    """The name of a key: C{maxAsleep} is written C{max-asleep}."""
    return re.sub(r"[A-Z]", lambda upper: f"-{upper[0].lower()}", attribute)
