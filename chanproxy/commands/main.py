"""
The C{chanproxy} command, for operators.
"""

from __future__ import annotations

import sys

import click

from chanproxy import __version__
from chanproxy.commands.call import command as callCommand
from chanproxy.commands.run import hold, run
from chanproxy.commands.trace import trace
from chanproxy.commands.watch import command as watchCommand
from chanproxy.words import safe


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Freeze idle containers; lose nothing; wake on the first message."""


for _command in (callCommand, hold, run, trace, watchCommand):
    main.add_command(_command)


@main.command()
@click.option("--all", "everything", is_flag=True, help="Also what living services have frozen.")
@click.option(
    "--search",
    is_flag=False,
    flag_value="",
    metavar="[CGROUP]",
    help="Also what no record names: look at all cgroups, or at those in one.",
)
def thaw(everything: bool, search: str | None) -> None:
    """Thaw what chanproxy left frozen, without any service."""
    from chanproxy.freezers.frozen import thawMarked, thawRecorded
    from chanproxy.freezers.rundirectory import runtimeDirectory
    from chanproxy.interfaces import FreezerError
    from chanproxy.service.service import thawNow

    thawed, failed = thawRecorded(thawNow, everything)
    if search is not None:
        try:
            more, wrong = thawMarked(thawNow, everything, search)
        except FreezerError as error:
            more, wrong = [], [str(error)]
        thawed, failed = thawed + more, failed + wrong
    for spec in thawed:
        click.echo(f"thawed {safe(spec)}")
    for sentence in failed:
        click.echo(f"NOT thawed: {safe(sentence)}", err=True)
    if not thawed and not failed:
        nor = ", and nothing else is left so" if search is not None else ""
        click.echo(f"nothing is recorded as frozen in {runtimeDirectory()}{nor}")
    if failed:
        sys.exit(1)


@main.command()
@click.option(
    "--cycles",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Wake cycles to measure.",
)
def demo(cycles: int) -> None:
    """Put an echo service to sleep and wake it, and show what happens."""
    from chanproxy.commands.demo import run as runDemo

    sys.exit(runDemo(cycles))
