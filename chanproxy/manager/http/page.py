"""
The page: one file, and the rule that nothing else may be loaded or run in it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources


@cache
def page() -> tuple[bytes, dict[str, str]]:
    """The page, and the headers that go with it."""
    text = resources.files("chanproxy.manager.http").joinpath("page.html").read_bytes()
    policy = {
        "default-src": "'none'",
        "script-src": _hash(text, b"script"),
        "style-src": _hash(text, b"style"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    rule = "; ".join(f"{name} {value}" for name, value in policy.items())
    return text, {"Content-Security-Policy": rule, "Cross-Origin-Opener-Policy": "same-origin"}


def _hash(text: bytes, tag: bytes) -> str:
    """What a browser compares the only such element with."""
    (inside,) = re.findall(rb"<%s>(.*?)</%s>" % (tag, tag), text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside).digest()).decode()}'"
