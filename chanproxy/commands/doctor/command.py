"""
C{chanproxy doctor}: whether this machine has what chanproxy needs, and how to mend what it lacks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator

import click

from chanproxy.commands.doctor import limits, machine, sockets, trial
from chanproxy.commands.doctor.findings import OK, PROBLEM, WARNING, Finding, problem
from chanproxy.words import safe

_COLOURS = {OK: "green", WARNING: "yellow", PROBLEM: "red"}


def examine(socket: str | None = None) -> Iterator[Finding]:
    """
    Everything, as it is found.

    @param socket: the control socket to ask; None: the usual one.
    """
    looks: list[Callable[[], Iterable[Finding]]] = [
        machine.kernel,
        machine.proc,
        machine.rights,
        trial.trial,
        limits.limits,
        lambda: sockets.control(socket),
        sockets.records,
        machine.python,
        machine.engines,
    ]
    for look in looks:
        try:
            yield from look()
        except (OSError, ValueError) as error:
            name = getattr(look, "__name__", "look")
            yield problem(name, f"it cannot be looked at: {error}", "mount /proc, give more rights")


@click.command("doctor")
@click.option("--json", "asJson", is_flag=True, help="Print one JSON object.")
@click.option("--socket", metavar="PATH", help="The control socket of the service to ask.")
def command(asJson: bool, socket: str | None) -> None:
    """
    Look whether this machine has what chanproxy needs.

    Looks at the kernel, the rights, the limits and the services that run, and tries it: a process
    of its own is frozen in a cgroup of its own, woken, and removed. Nothing else is touched, and
    nothing stays. Run it as the user of the service, and where that runs.

    Exits with 0 if nothing keeps chanproxy from working, and with 1 otherwise.
    """
    found = []
    for finding in examine(socket):
        found.append(finding)
        if not asJson:
            kind, rest = str(finding).split(":", 1)
            click.echo(click.style(kind, fg=_COLOURS[kind]) + safe(f":{rest}"))
    counts = {kind: sum(each.kind == kind for each in found) for kind in (PROBLEM, WARNING)}
    if asJson:
        findings = [finding.tree() for finding in found]
        click.echo(json.dumps({"findings": findings, **{f"{k}s": n for k, n in counts.items()}}))
    else:
        problems, warnings = (
            f"{n} {kind}" if n == 1 else f"{n} {kind}s" for kind, n in counts.items()
        )
        click.echo(
            f"{problems}, {warnings}; when a container does not sleep, wakes all the time or does "
            "not answer, ask 'chanproxy why NAME' and 'chanproxy events NAME' (man chanproxy)"
        )
    sys.exit(1 if counts[PROBLEM] else 0)
