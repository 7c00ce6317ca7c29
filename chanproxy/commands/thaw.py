"""
C{chanproxy thaw}: what is left frozen is thawed without any service.
"""

from __future__ import annotations

import sys

import click

from chanproxy.freezers.frozen import thawMarked, thawRecorded
from chanproxy.freezers.thawing import thawNow
from chanproxy.interfaces import FreezerError
from chanproxy.kernel.rundirectory import runtimeDirectory
from chanproxy.words import safe


@click.command("thaw")
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
