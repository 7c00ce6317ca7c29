"""
The API reference, for C{python -m pydoctor --system-class docs.reference.Reference}: `make docs`.

What a docstring links to is ours, Twisted's or Python's.  That others have a name is known by
importing it: it needs no network, and is about the version that is installed.
"""

from __future__ import annotations

import builtins
import sys

from pydoctor.extensions.zopeinterface import (  # type: ignore[import-untyped]
    ZopeInterfaceClass,
)
from pydoctor.model import DocumentableKind, System  # type: ignore[import-untyped]
from pydoctor.sphinx import SphinxInventory  # type: ignore[import-untyped]
from twisted.python.reflect import namedAny
from zope.interface.interface import InterfaceClass

TWISTED = "https://docs.twisted.org/en/stable/api"
PYTHON = "https://docs.python.org/3/library"


def _there(name: str) -> object:
    """What a name with dots stands for; None: nothing."""
    try:
        return namedAny(name)
    except (AttributeError, ImportError, ValueError):
        return None


def _module(name: str) -> str:
    """The module in which a name is, that is there."""
    while name not in sys.modules:
        name = name.rpartition(".")[0]
    return name


def linkOf(name: str) -> str | None:
    """
    Where others describe a name of theirs; None: it is not theirs, or they have no such name.

    Of the names without a module only constants and exceptions: the others (C{next}, C{filter})
    are words that our own methods have, too.
    """
    head = name.partition(".")[0]
    if "." not in name:
        found = getattr(builtins, name, None)
        if name in ("None", "True", "False"):
            return f"{PYTHON}/constants.html#{name}"
        if isinstance(found, type) and issubclass(found, BaseException):
            return f"{PYTHON}/exceptions.html#{name}"
        return None
    if head != "twisted" and head not in sys.stdlib_module_names:
        return None
    if _there(name) is None:
        return None
    module = _module(name)
    if head != "twisted":
        return f"{PYTHON}/{module}.html#{name}"
    # Functions are on the page of their module, methods on that of their class.
    owner, _, last = name.rpartition(".")
    if module == name or isinstance(_there(name), type | InterfaceClass):
        return f"{TWISTED}/{name}.html"
    return f"{TWISTED}/{owner}.html#{last}"


class _Others(SphinxInventory):  # type: ignore[misc]  # it has no annotations
    def getLink(self, name: str) -> str | None:
        return linkOf(name)


class Reference(System):  # type: ignore[misc]  # it has no annotations
    """Our package, as pydoctor has it."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.intersphinx = _Others(logger=self.msg)

    def postProcess(self) -> None:
        """An interface that is made of Twisted's is one, too."""
        for each in self.objectsOfType(ZopeInterfaceClass):
            if any(isinstance(_there(base), InterfaceClass) for base in each.bases):
                each.isinterface = True
                each.kind = DocumentableKind.INTERFACE
                each.implementedby_directly = []
        super().postProcess()
