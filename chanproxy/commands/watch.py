"""
C{chanproxy watch}: have one container sleep and wake by its own sockets, and print what happens.

Here is what is said on the command line, and who does it: a service that runs already, see
L{chanproxy.commands.joining}, or one of its own, see L{chanproxy.commands.alone}.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

import chanproxy
from chanproxy import config
from chanproxy.commands.call import defaultSocket
from chanproxy.commands.inside import nameOf
from chanproxy.commands.options import KEYS, containerOptions, said
from chanproxy.commands.programs import ProgramCommand, graceOption, replaceOption
from chanproxy.commands.stopping import say
from chanproxy.guest import ServiceGone
from chanproxy.guest._wire import Connection
from chanproxy.words import brief

PATIENCE = 10.0
"""Seconds to wait until a service takes a connection."""


@click.command("watch", ProgramCommand)
@click.argument("freezer")
@click.argument("program", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", help="What it is called; by default the last part of the path.")
@click.option("--dry-run", is_flag=True, help="Freeze nothing; say what would happen.")
@click.option("--alone", is_flag=True, help="Be a service of its own, also where one runs.")
@click.option("--socket", "path", metavar="PATH", help="The control socket of a service that runs.")
@click.option("--control", help="Where to take calls, as a service of its own; a path.")
@containerOptions("freezer", "suspend", "wake-on")
@graceOption
@replaceOption
def command(
    freezer: str,
    program: tuple[str, ...],
    name: str | None,
    path: str | None,
    **options: Any,
) -> None:
    """
    Have the container FREEZER, such as cgroup:redis, sleep when idle and wake by its own sockets.

    It becomes a container of the service that runs here and lets this user add some; where there
    is none, or with --alone or --control, this is one itself.

    With a PROGRAM and its arguments after --, the cgroup is made for it and goes with it. Prints
    each change, until the program ends, or it is told to stop; then the container runs. What the
    program has left running then is told to end (SIGTERM), and killed after --grace, or when a
    second signal says so.
    """
    if ":" not in freezer and freezer != "none":
        raise click.UsageError(
            f"the first word says which cgroup, as in: chanproxy watch cgroup:{_proposed(freezer)} "
            f"-- PROGRAM; {brief(freezer)} is none"
        )
    grace, replace = options.pop("grace"), options.pop("replace")
    control, alone = options.pop("control"), options.pop("alone")
    if path and (alone or control):
        raise click.UsageError(
            f"--socket is for a service that runs, and --{'alone' if alone else 'control'} for"
            " none; leave one of them out"
        )
    container = {"freezer": freezer, "wake-on": "sockets"}
    if options.pop("dry_run"):
        container["suspend"] = "dry-run"
    container |= said(options)
    try:
        configuration = config.fromOptions(container, name=name or nameOf(freezer), control=control)
    except config.ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    if not alone and not control:
        socket = path or defaultSocket()
        ways = {"name": name, "grace": grace, "replace": replace}
        named = bool(path or os.environ.get("CHANPROXY_CONTROL"))
        _joinIfThere(socket, named, {"container": _parameters(container), **ways}, program)
    # The service itself takes its time to load.
    from chanproxy.commands.alone import watch

    sys.exit(watch(configuration, program, grace, replace))


def _proposed(word: str) -> str:
    """A name for the container that somebody may have meant."""
    return re.sub(r"[^\w.-]+", "-", os.path.basename(word.rstrip("/"))).strip("-") or "web"


def _parameters(container: Mapping[str, Any]) -> dict[str, Any]:
    """As a call of the manager has them; see L{chanproxy.config.kinds.Kind.fromCall}."""
    found = {KEYS[key].parameter: value for key, value in container.items() if key in KEYS}
    found["freezer"] = container["freezer"]
    return found


def _joinIfThere(path: str, named: bool, wanted: Mapping[str, Any], program: Sequence[str]) -> None:
    """
    Become a client of a service, if one takes connections; returns if none does.

    @param path: of its control socket.
    @param named: somebody has said that there is one.
    @param wanted: see L{chanproxy.commands.joining.Joining}.
    """
    try:
        Connection(path, PATIENCE).close()
    except ServiceGone as error:
        if named or isinstance(error.__cause__, PermissionError):
            say(f"{error}; this is a service of its own now")
        return
    python = _python()
    if not python:
        return
    # What has read the command line is four times as large as what is left to do: it goes.
    again = [*python, "-m", "chanproxy", "watch", "--alone", *sys.argv[2:]]
    text = json.dumps({**wanted, "socket": path, "again": again})
    words = [*python, "-m", "chanproxy.commands.joining", text, *program]
    sys.stdout.flush()
    os.execv(python[0], words)


def _python() -> list[str]:
    """What runs this very package once more, and no other; nothing, where that is not known."""
    if not sys.executable:
        return []
    if sys.flags.isolated:
        return [sys.executable, "-I"]
    root = os.path.dirname(os.path.dirname(os.path.abspath(chanproxy.__file__)))
    # Where it was not started in, nothing is to be loaded from.
    return [sys.executable] if sys.path[0] == root == os.getcwd() else [sys.executable, "-P"]
