"""
Writes what the configuration's keys are into the files that say so: the tables of
docs/configuration.md (all but the last column, which is prose), and the interface of the manager.

C{make keys}.  With C{--check} nothing is written: it ends with 1 if something would be.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from chanproxy.config import (
    access,
    adoption,
    channels,
    containers,
    discovery,
    history,
    limits,
    scheduling,
)
from chanproxy.config.keys import Key
from chanproxy.config.setting import SETTABLE

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "configuration.md"
INTERFACE = ROOT / "chanproxy" / "manager" / "org.chanproxy.Manager.varlink"

TABLES: Mapping[str, Sequence[Sequence[Key]]] = {
    "`[limits]`": [list(limits.KEYS.values())],
    "`[scheduling]`": [list(scheduling.KEYS.values())],
    "`[history]`": [list(history.KEYS.values())],
    "`[discovery.NAME]`": [list(discovery.KEYS.values())],
    "`[containers.NAME]`": [
        [*containers.KEYS.values(), adoption.WAKE_ON],
        list(adoption.KEYS.values()),
    ],
    "`[containers.NAME.channels.NAME]`": [channels.ALL],
    "`[access.NAME]`": [access.ALL],
}
"""The tables of keys under each heading of the page."""


def page(text: str) -> str:
    """The page as it should be."""
    parts = re.split(r"(?m)^(?=## )", text)
    for number, part in enumerate(parts):
        heading = part.partition("\n")[0].removeprefix("## ")
        for keys in TABLES.get(heading, ()):
            part = _table(part, keys)
        parts[number] = part
    return "".join(parts)


def _table(part: str, keys: Sequence[Key]) -> str:
    """A part of the page, with the table made right that has the first of some keys."""
    lines = part.split("\n")
    known = {f"`{key.name}`" for key in keys}
    begin = next(at for at, line in enumerate(lines) if known & set(_cells(line)[:1]))
    head = _cells(lines[begin - 2])
    end = begin
    while lines[end].startswith("|"):
        end += 1
    said = {_cells(line)[0]: _cells(line)[-1] for line in lines[begin:end]}
    there = [key for name in said for key in keys if name == f"`{key.name}`"]
    made = []
    for key in dict.fromkeys([*there, *keys]):
        columns = {"key": f"`{key.name}`", "default": key.shownDefault}
        meaning = said.get(f"`{key.name}`", key.sentence)
        cells = [columns.get(each, key.kind.allowed) for each in head[:-1]]
        made.append(f"| {' | '.join([*cells, meaning])} |")
    return "\n".join([*lines[:begin], *made, *lines[end:]])


def _cells(line: str) -> list[str]:
    """Of a row; of another line, none."""
    return line.strip("| ").split(" | ") if line.startswith("|") else []


def interface(text: str) -> str:
    """The interface as it should be."""
    text = _between(text, "type Channel (\n", "\n)\n", _fields(channels.ALL))
    own = ["  name: string", *_fields(containers.ALL)]
    own += ["  channels: ?[string]Channel", "  lifetime: ?Lifetime"]
    text = _between(text, "method AddContainer(\n", "\n) -> ()", own)
    settable = _fields(key for key in containers.ALL if key.name in SETTABLE)
    own = ["  name: string", "  back: ?[]string", *settable]
    return _between(text, "method SetContainer(\n", "\n) -> (", own)


def _between(text: str, begin: str, end: str, fields: Sequence[str]) -> str:
    head, _, rest = text.partition(begin)
    return head + begin + ",\n".join(fields) + rest[rest.index(end) :]


def _fields(keys: Iterable[Key]) -> list[str]:
    return [
        f"  {key.name.replace('-', '_')}: {'' if key.required else '?'}{key.kind.varlink}"
        for key in keys
    ]


def main() -> None:
    """Write both, or tell what is not as it should be."""
    wrong = []
    for file, made in ((PAGE, page), (INTERFACE, interface)):
        text = file.read_text()
        if made(text) != text:
            wrong.append(file)
            if "--check" not in sys.argv:
                file.write_text(made(text))
    if "--check" in sys.argv and wrong:
        names = ", ".join(str(file.relative_to(ROOT)) for file in wrong)
        sys.exit(f"{names}: not what the keys say; run make keys")


if __name__ == "__main__":
    main()
