"""
Values as parts of sentences: on one line, no longer than is useful, whoever wrote them.

Knows nothing of where the values are from.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable

LONGEST_NAME = 256
"""
Characters of a name that are shown: more than a thread's (15) or a socket's path (107) has, and a
file name's most; a path of thousands would push all else out of its line.
"""

LINGERING = "it has been quiet for less than the linger time"
"""Why a container is awake, when there is no other reason: that is no news."""

_PLAIN = re.compile(r"[ !-+\--Z^-~]*")
"""What prints in ASCII, without what has a meaning in our lines: commas, brackets, backslash."""

_MARKS = {ord(mark): f"\\x{ord(mark):02x}" for mark in ",[]"} | {ord("\\"): "\\\\"}


def safe(text: str) -> str:
    """
    A line of ours that may hold what others wrote, for a log, a pipe or a terminal.

    What would end the line, move a cursor, turn the direction of reading, or is no UTF-8, is
    written as an escape.  Doing so twice changes nothing more.
    """
    if text.isprintable():
        return text
    shown = []
    for character in text:
        if character.isprintable():
            shown.append(character)
        elif "\udc80" <= character <= "\udcff":
            # A byte that was no UTF-8, see os.fsdecode.
            shown.append(f"\\x{ord(character) & 0xFF:02x}")
        else:
            shown.append(character.encode("unicode_escape").decode("ascii"))
    return "".join(shown)


def named(name: str | bytes) -> str:
    """
    A name that others chose (a thread's, a path), for a place inside of a line of ours.

    As L{safe}; and it cannot pass for more than one name, for what separates them (a comma) and
    what stands behind one (C{[12]}) is an escape in it.  Cut at L{LONGEST_NAME} characters.  To be
    done once, where the name comes in: doing it twice escapes the escapes.
    """
    text = os.fsdecode(name)
    if len(text) > LONGEST_NAME:
        return f"{named(text[:LONGEST_NAME])}..."
    if _PLAIN.fullmatch(text):
        return text
    return safe(text.translate(_MARKS))


def listed(names: Iterable[str]) -> str:
    """Names in one text, with commas between them and none inside."""
    return ",".join(name.replace(",", "\\x2c") for name in names)


def spelled(reason: str) -> str:
    """What L{listed} has made of one name that is a sentence, as people write it."""
    return reason.replace("\\x2c ", ", ")


def unlisted(text: str, most: int) -> tuple[str, ...]:
    """The names in a text of L{listed}, the first C{most} of them; a text without any has none."""
    names = text.split(",", most)[:most] if text else []
    return tuple(name.replace("\\x2c", ",") for name in names)


def brief(value: object) -> str:
    """A text or a number, quoted as Python does, cut when long."""
    # Python refuses to write out whole numbers of thousands of digits.
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of more than 128 bits"
    written = repr(value)
    return written if len(written) <= 120 else f"{written[:100]}..."


def written(value: object) -> str:
    """A value as it is written in a TOML file; a text without backslashes before what it holds."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value) if isinstance(value, int) else f"{value:.15g}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(written, value))}]"
    text = str(value)
    if text.isprintable() and "'" not in text:
        return f"'{text}'"
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    """A character of a text in double quotes."""
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


class Wrong(ValueError):
    """
    What is wrong with a value, and which would do in its place; the text says both.

    @ivar wrong: a clause, without the values.
    @ivar better: what was meant most probably, the likeliest first.
    @ivar examples: what would do, where nobody can know what was meant.
    """

    def __init__(self, wrong: str, *better: object, examples: Iterable[object] = ()) -> None:
        self.wrong = wrong
        self.better = better
        self.examples = tuple(examples)
        remedy = self.remedy()
        super().__init__(f"{wrong}; {remedy}" if remedy else wrong)

    def remedy(self, key: str = "") -> str:
        """
        What to write instead; empty, where it does not know any.

        @param key: the value's, if it has one.
        """
        values = self.better or self.examples
        if not values:
            return ""
        head = "write" if self.better else "write for example"
        name = f"{key} = " if key else ""
        return f"{head} {name}{', or '.join(map(written, values))}"


def meant(word: str, known: Iterable[str], label: str = "known are") -> str:
    """What to do about a word that is not known: the nearest one, or all of them."""
    words = list(known)
    near = difflib.get_close_matches(word.lower()[:200], words, 1)
    if near:
        return f"did you mean {near[0]}?"
    if not words:
        return "leave it out"
    shown, more = words[:20], len(words) - 20
    return f"{label} {', '.join(shown)}" + (f" and {more} more" if more > 0 else "")


_UNITS = {
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}

_TIME = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.ASCII | re.IGNORECASE)


def usable(name: str) -> str:
    """A name like that one, of letters, digits, dot, - and _, as a part of a path."""
    return re.sub(r"[^\w.-]+|\.{2,}", "-", name, flags=re.ASCII).strip("-.") or "container"


def secondsWritten(text: str) -> float | None:
    """Seconds, of C{15s} or C{15}, whole if they are; L{None}: they are written in another way."""
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        return None
    if not math.isfinite(seconds):
        return None
    return int(seconds) if seconds.is_integer() else seconds


def secondsMeant(text: str) -> float | None:
    """Seconds, of C{5m}, C{1 hour} or C{500ms}; L{None}: it is no time."""
    found = _TIME.fullmatch(text)
    unit = _UNITS.get(found[2].lower()) if found else None
    return None if found is None or unit is None else float(found[1]) * unit


def numberMeant(text: str) -> float | None:
    """A number, of C{"0.5"}, C{5%} or C{1_000}; L{None}: it is none."""
    share = text.strip().endswith("%")
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return number / 100 if share else number


_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def isContainerName(text: str) -> bool:
    """Whether a container can have that name, as Docker and Podman check it."""
    return _CONTAINER.fullmatch(text) is not None


def plainPath(path: str) -> str:
    """The same file by the same text; C{..} stays, for symbolic links give it a meaning."""
    if path.startswith("@"):
        return path
    while "/./" in path or "//" in path:
        path = path.replace("/./", "/").replace("//", "/")
    return path.rstrip("/")
