"""
Keys as options of a command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chanproxy.config.keys import Key


def helpOf(key: Key) -> str:
    """What is said of it in a list of options."""
    text = key.sentence.removesuffix(".")
    if key.kind.choices:
        text += f": {', '.join(key.kind.choices)}"
    if key.required or key.otherwise or key.default in (None, (), ""):
        return f"{text}."
    return f"{text} ({key.kind.shown(key.default).strip(chr(34))})."


def written(keys: Iterable[Key], words: Mapping[str, Any]) -> dict[str, Any]:
    """
    What stands for some words in a file; keys that are no options have none.

    @param words: by the names of keys; L{None}: it was not said.
    """
    return {
        key.name: key.kind.fromText(words[key.name])
        for key in keys
        if key.option and words.get(key.name) is not None
    }
