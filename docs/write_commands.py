"""
Writes what the commands take into the files that say so: how each is called and its options into
docs/commands.md (the rest of it is prose), and both, with the page's tables, into the man page
docs/chanproxy.1.

C{make keys}.  With C{--check} nothing is written: it ends with 1 if something would be.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from chanproxy.commands.main import COMMANDS, main

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "commands.md"
MANUAL = ROOT / "docs" / "chanproxy.1"

SECTIONS = ("Exit status", "Environment", "Files")
"""Of the page: their tables are sections of the man page."""


def loaded() -> Iterator[tuple[str, click.Command, click.Context]]:
    """All commands, by their names."""
    context = click.Context(main, info_name="chanproxy")
    for name in sorted(COMMANDS):
        command = main.get_command(context, name)
        assert command is not None
        yield name, command, click.Context(command, context, info_name=name)


def usage(command: click.Command, context: click.Context) -> str:
    """How it is called."""
    return " ".join([context.command_path, *command.collect_usage_pieces(context)])


def options(command: click.Command, context: click.Context) -> list[tuple[str, str]]:
    """Its options as they are written, and what each is for; without C{--help}."""
    found = (each for each in command.params if isinstance(each, click.Option))
    records = [option.get_help_record(context) for option in found]
    return [(each[0], each[1].replace("  [", " [")) for each in records if each is not None]


def page(text: str) -> str:
    """The page as it should be."""
    parts = re.split(r"(?m)^(?=## )", text)
    for name, command, context in loaded():
        made = _generated(name, command, context)
        heading = f"## `chanproxy {name}`\n"
        known = [number for number, part in enumerate(parts) if part.startswith(heading)]
        if known:
            parts[known[0]] = made + _prose(parts[known[0]])
        else:
            parts.append(f"{made}\n{command.get_short_help_str(200)}\n")
    return "".join(parts)


def _generated(name: str, command: click.Command, context: click.Context) -> str:
    lines = [f"## `chanproxy {name}`", "", "```text", usage(command, context), "```", ""]
    found = options(command, context)
    if found:
        rows = [f"| `{option}` | {_cell(meaning)} |" for option, meaning in found]
        lines += ["| option | meaning |", "| --- | --- |", *rows, ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _prose(part: str) -> str:
    """What is left of a command's part without what is generated."""
    generated = (
        r"## .*\n\n```text\nchanproxy .*\n```\n\n(?:\| option \| meaning \|\n(?:\|.*\n)+\n?)?"
    )
    found = re.match(generated, part)
    return "\n" + part[found.end() if found else part.index("\n") + 1 :].lstrip("\n")


def manual(text: str) -> str:
    """
    The man page.

    @param text: of the page.
    """
    lines = [
        '.\\" Made of the commands and of docs/commands.md by python -m docs.write_commands.',
        '.TH CHANPROXY 1 "" chanproxy "User Commands"',
        *(".SH NAME", "chanproxy \\- freeze idle containers, and wake them on the first message"),
        *(".SH SYNOPSIS", ".B chanproxy", ".I COMMAND", "[\\fIOPTIONS\\fR] ..."),
        *(".SH DESCRIPTION", _roff(" ".join(_introduction(text).split()))),
        *(".SH COMMANDS", "Each has an option \\fB\\-\\-help\\fR."),
    ]
    for name, command, context in loaded():
        lines += [f".SS chanproxy {_roff(name)}", f".B {_roff(usage(command, context))}", ".PP"]
        for number, paragraph in enumerate((command.help or "").strip().split("\n\n")):
            lines += [".PP"] * bool(number) + [_roff(" ".join(paragraph.split()))]
        for option, meaning in options(command, context):
            lines += [".TP", f".B {_roff(option)}", _roff(meaning)]
    for section in SECTIONS:
        lines.append(f".SH {section.upper()}")
        for first, meaning in _table(text, section):
            lines += [".TP", f".B {_roff(first)}", _roff(meaning)]
    lines += [".SH SEE ALSO", "twistd(1), cgroups(7)"]
    return "\n".join(lines) + "\n"


def _introduction(text: str) -> str:
    """The first paragraph of the page."""
    return _plain(text.split("\n\n")[1])


def _table(text: str, section: str) -> list[tuple[str, str]]:
    """The rows of the table in a section, without its head."""
    part = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ", 1) for line in part.splitlines() if line.startswith("|")]
    return [(_plain(first), _plain(rest)) for first, rest in rows[2:]]


def _plain(text: str) -> str:
    """Markdown without its marks."""
    return re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text).replace("`", "")


def _roff(text: str) -> str:
    """A line that groff shows as it is."""
    shown = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + shown if shown[:1] in (".", "'") else shown


def write() -> None:
    """Write both, or tell what is not as it should be."""
    old = PAGE.read_text()
    text = page(old)
    made = manual(text)
    wrong = [PAGE] * (text != old)
    wrong += [MANUAL] * (not MANUAL.exists() or MANUAL.read_text() != made)
    if "--check" in sys.argv:
        if wrong:
            names = ", ".join(str(file.relative_to(ROOT)) for file in wrong)
            sys.exit(f"{names}: not what the commands say; run make keys")
        return
    PAGE.write_text(text)
    MANUAL.write_text(made)


if __name__ == "__main__":
    write()
