"""
Values as parts of sentences: on one line, no longer than is useful, whoever wrote them.

Knows nothing of where the values are from.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def brief(value: object) -> str:
    """A text or a number, quoted as Python does, cut when long."""
    # Python refuses to write out whole numbers of thousands of digits.
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of more than 128 bits"
    written = repr(value)
    return written if len(written) <= 120 else f"{written[:100]}..."


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
