"""
Addresses of Twisted's own kinds: why it makes no endpoint of one, in words for who wrote it.

Opens nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module

from chanproxy.endpoints.addresses import Address
from chanproxy.endpoints.guessing import EXAMPLES
from chanproxy.words import safe, written

_SECURE = ("tls", "ssl")

NO_TLS = "TLS is not installed here; install it: pip install 'chanproxy[tls]'"

_SENTENCES = (
    (r"missing \d+ required (?:positional|keyword-only) arguments?: (.*)", r"it lacks \1"),
    (r"unexpected keyword argument '?([^']*)'?", r"there is no argument '\1'"),
    (r"unrecognized keyword arguments present', \['(\w+)'", r"there is no argument '\1'"),
    (r"takes .* positional arguments? but \d+ were given", "it has too many arguments"),
    (r"invalid literal for int\(\) with base 10: (.*)", r"\1 is no number"),
    (r"^Unknown endpoint type: '?([^']*)'?", r"there is no kind '\1'"),
)
"""What Python says of its own functions, and what it means for who wrote their arguments."""


def hasTls() -> bool:
    """Whether Twisted can do TLS: it needs packages of others."""
    try:
        import_module("twisted.internet.ssl")
    except ImportError:
        return False
    return True


def whyNotMade(address: Address, error: Exception, listening: bool) -> str:
    """
    What is wrong with an address, and what to do.

    @param error: what Twisted raised for it.
    """
    scheme = address.scheme.lower()
    # Where it is not installed, Twisted says that some name is not defined.
    if (scheme in _SECURE or isinstance(error, (ImportError, NameError))) and not hasTls():
        return NO_TLS
    examples = EXAMPLES.get(scheme)
    what = "correct its arguments"
    if isinstance(error, OSError) or hasattr(error, "originalException"):
        what = "name a file that can be read"
    elif examples is not None:
        what = f"write for example {written(examples[not listening])}"
    return f"Twisted says of {scheme}: {'; '.join(_said(error))}; {what}"


def _said(error: Exception) -> Iterator[str]:
    # One that wraps another says nothing itself.
    error = getattr(error, "originalException", error)
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        yield safe(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        return
    for pattern, sentence in _SENTENCES:
        if found := re.search(pattern, text):
            yield found.expand(sentence)
            return
    if "PEM routines" in text or "DECODER routines" in text:
        yield "a file of it holds no key, or no certificate, in PEM"
        return
    yield text or type(error).__name__
