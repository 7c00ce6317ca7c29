"""
C{chanproxy check}: whether a configuration file can be used, and what in it is unwise.

By the same reader and the same looks as C{twistd chanproxy --config}; nothing is started.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import cast

import click
from attrs import frozen

from chanproxy import config
from chanproxy.config import Problem
from chanproxy.config.problems import Unreadable
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.service import preflight
from chanproxy.service.unwise import unwise
from chanproxy.words import safe


@frozen
class Checked:
    """
    What there is to say of a file.

    @ivar problems: for which the service does not start.
    @ivar warnings: for which it does.
    """

    problems: Sequence[Problem]
    warnings: Sequence[Problem] = ()


def check(path: str, running: bool = False) -> Checked:
    """
    Read a file, and look.

    @param running: what is in use is no problem: a service that is to be started again has it.
    @raise Unreadable: there is no such file.
    """
    from twisted.internet import reactor

    try:
        configuration = config.loadFile(path)
    except Unreadable:
        raise
    except config.ConfigurationError as error:
        return Checked(error.problems)
    found = preflight(configuration, cast(ChanproxyReactor, reactor))
    passing = [problem for problem in found if problem.passing and running]
    problems = [problem for problem in found if problem not in passing]
    return Checked(problems, [*passing, *unwise(configuration)])


def _tree(kind: str, problem: Problem) -> dict[str, object]:
    return {
        "kind": kind,
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "key": problem.path or None,
        "says": problem.wrong,
        "remedy": problem.remedy or None,
    }


@click.command("check")
@click.argument("file", metavar="CONFIG")
@click.option("--json", "asJson", is_flag=True, help="Print one JSON object.")
@click.option("--strict", is_flag=True, help="With warnings, exit with status 1 as well.")
@click.option(
    "--running",
    is_flag=True,
    help="A service runs with this file: what is in use is a warning only.",
)
@click.option(
    "--accept", metavar="KEY", multiple=True, help="Do not warn of this key: it is meant so."
)
def command(file: str, asJson: bool, strict: bool, running: bool, accept: Sequence[str]) -> None:
    """
    Check the configuration file CONFIG, without starting anything.

    Prints a line for each problem, for which the service would not start, and for each thing that
    is legal and unwise. Run it as the user of the service.

    Exits with 0 if it can be used, 1 if not, 2 if it cannot be read.

    For example: chanproxy check --strict /etc/chanproxy.toml
    """
    try:
        checked = check(file, running)
    except Unreadable as error:
        click.echo(safe(str(error)), err=True)
        sys.exit(2)
    warnings = [each for each in checked.warnings if each.path not in accept]
    found = [("problem", each) for each in checked.problems]
    found += [("warning", each) for each in warnings]
    if asJson:
        findings = [_tree(kind, each) for kind, each in found]
        click.echo(json.dumps({"file": file, "findings": findings}))
    else:
        for kind, each in sorted(found, key=lambda pair: pair[1].line or 0):
            mark = "warning: " if kind == "warning" else ""
            parts = (each.where, each.path, mark + each.sentence)
            click.echo(safe(": ".join(part for part in parts if part)))
    sys.exit(1 if checked.problems or (strict and warnings) else 0)
