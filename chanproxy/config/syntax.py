"""
What is no TOML: the line that was meant, where that can be known.

Pure; knows no key of ours.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from chanproxy.config.kinds import Kind
from chanproxy.words import Wrong, written

ELSE = "see https://toml.io for the language"

_ONCE = {
    "Cannot declare": "write each table once, with all of its keys",
    "Cannot overwrite": "write each key once, and on a line of its own",
}

_QUOTES = dict.fromkeys(map(ord, "\u201c\u201d\u201e\u2018\u2019\u201a"), "'")
"""Those of texts, which editors put there by themselves."""

_PAIR = re.compile(r"\s*(?P<key>[\w-]+(?: [\w-]+)?)\s*[=:\s]\s*(?P<value>[^\s=].*?)\s*[;,]?\s*")

_BARE = re.compile(r"[^'\"\[\]{},]+")

_WORDS = dict.fromkeys(("true", "yes", "on"), "true")
_WORDS |= dict.fromkeys(("false", "no", "off"), "false")


def remedy(error: str, line: str, kinds: Mapping[str, Iterable[Kind]]) -> str:
    """
    What to do about a line.

    @param error: what the parser says.
    @param kinds: what may be written for a key, by its name; more than one, where tables differ.
    """
    for begin, said in _ONCE.items():
        if error.startswith(begin):
            return said
    for guess in _guesses(line.translate(_QUOTES)):
        try:
            ((key, value),) = tomllib.loads(guess).items()
        # Python's own limits are a ValueError, and so is a line with none or more than one.
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return f"write {guess}"
        for accepted in _accepted(value, kinds.get(key)):
            return f"write {key} = {accepted}"
    if line.lstrip().startswith("//"):
        return "begin a comment with #"
    begun = re.match(r"\s*([\w-]+)\s*=", line)
    key = begun[1] if begun else ""
    return next((kind.remedy(key, "NAME") for kind in kinds.get(key, ())), ELSE)


def _accepted(value: Any, kinds: Iterable[Kind] | None) -> Iterator[str]:
    """What could stand there: that value, if a kind takes it, or what it says was meant by it."""
    if kinds is None:
        yield written(value)
        return
    for kind in kinds:
        try:
            kind.check(value)
        except Wrong as error:
            yield from map(written, error.better)
        except ValueError:
            continue
        else:
            yield written(value)


def _guesses(line: str) -> Iterator[str]:
    """Lines that may have been meant, the likeliest first."""
    stripped = line.split(" #")[0].strip()
    if stripped.startswith("["):
        name = stripped.strip("[]").strip()
        yield f"[{name}]"
        yield f"[{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}]"
        return
    found = _PAIR.fullmatch(stripped)
    if found is None:
        return
    key = found["key"].replace(" ", "-")
    for value in _values(found["value"]):
        yield f"{key} = {value}"


def _values(text: str) -> Iterator[str]:
    yield text
    if text.lower() in _WORDS:
        yield _WORDS[text.lower()]
    if re.fullmatch(r"\d*[.,]\d+", text):
        yield f"{float(text.replace(',', '.')):.15g}"
    if text[:1] == text[-1:] == '"' and "'" not in text:
        # In these a backslash stands for itself.
        yield f"'{text[1:-1]}'"
    if text[:1] == "[":
        items = [item.strip().strip("'\"") for item in text.strip("[]").split(",")]
        yield f"[{', '.join(written(item) for item in items if item)}]"
    if _BARE.fullmatch(text):
        yield f"'{text}'"
    elif text[:1] in ("'", '"') and text.count(text[0]) == 1:
        # It was never closed.
        yield written(text[1:])
