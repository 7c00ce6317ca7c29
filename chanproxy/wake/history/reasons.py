"""
Reasons without what differs each time: numbers of processes and connections, ports of peers.

So that those which say the same are one, and the history tells of no peer's address.  Pure.
"""

from __future__ import annotations

import re

from chanproxy.words import safe

MOST = 32
"""Reasons of one container in one hour, of each kind; what comes then is L{OTHERS}."""

OTHERS = "other reasons"
"""Those for which there is no room."""

SHOWN = 3
"""Names in a reason that were signalled together."""

LONGEST = 120
"""Characters of a reason."""

_NUMBERED = re.compile(
    r"""
    \[\d+\]                             # a process or thread: node[123]
    | (?<=\w)\#\d+                      # the connection of a channel: lsp#3
    | (?<=^hold)/\d+                    # who holds: hold/123
    | \ from\ (?:\[[\da-f:.]+\]|[\d.]+):\d+  # who came: tcp 0.0.0.0:80 from 127.0.0.1:5123
    | (?<=\btcp)\ (?:\[[\da-f:.]+\]|[\d.]+):\d+(?=\ to\ )   # our end of what it has opened
    | (?<=thread)\ \d+(?=\ of\ )
    | ,\ and\ busy-\w+\ =\ .*           # the setting that it is above
    """,
    re.VERBOSE,
)

_MEASURED = re.compile(r"\d[\d.]*(?:e[+-]?\d+)?(?=%| s\b| times\b)")
_PEER = re.compile(r"(?<=answered )\S+|(?<=sent to )\S+")


def general(text: str, container: str) -> str:
    """
    One name of what was signalled, or one sentence, without what differs each time.

    @param container: whose it is; what begins with its name goes without that.
    """
    text = text.removeprefix(f"{container}/")
    text = text.replace(f" {container}/", " ")
    text = _PEER.sub("somebody", _NUMBERED.sub("", text))
    text = safe(_MEASURED.sub("N", text)).strip()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def generalAll(names: tuple[str, ...], container: str) -> str:
    """What all of them come to, each once."""
    found = sorted({general(name, container) for name in names})
    more = ["..."] if len(found) > SHOWN else []
    text = ", ".join(found[:SHOWN] + more)
    return text or "nothing that is known"


class Known:
    """The reasons of one kind that were seen in an hour; bounded."""

    def __init__(self) -> None:
        self._hour = 0
        self._seen: set[str] = set()

    def admit(self, hour: int, reason: str) -> str:
        """@return: the reason, or L{OTHERS}."""
        if hour != self._hour:
            self._hour = hour
            self._seen.clear()
        if reason not in self._seen:
            if len(self._seen) >= MOST:
                return OTHERS
            self._seen.add(reason)
        return reason
