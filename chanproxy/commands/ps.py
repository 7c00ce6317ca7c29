"""
C{chanproxy ps}: all containers of a running service, a row each.
"""

from __future__ import annotations

import click

from chanproxy.commands.asking import asking, containersArgument, jsonOption
from chanproxy.commands.rows import Row
from chanproxy.commands.showing import Moment, duration, jsonLine, table
from chanproxy.commands.where import Where, whereOptions

HEAD = ("NAME", "STATE", "FOR", "ASLEEP", "SPARED", "WHY")


@click.command("ps")
@whereOptions
@jsonOption
@containersArgument
def ps(where: Where, asJson: bool, names: tuple[str, ...]) -> None:
    """
    Show what each container does, in a row.

    All of them, or these NAMEs.  FOR is how long it is awake, or asleep; ASLEEP the share of today
    that it slept; SPARED how much of a processor that has spared; WHY what keeps it awake, or what
    woke it last.
    """
    with asking(where) as service:
        found, now = service.some(names)
    moment = Moment(now)
    rows = [Row.of(entry, moment) for entry in found]
    if asJson:
        for row in rows:
            jsonLine(row.fields())
        return
    table(
        HEAD,
        [
            (
                *(row.name, row.shownState, duration(row.seconds)),
                *(*row.worth, row.reason(moment)),
            )
            for row in rows
        ],
        right=("FOR", "ASLEEP", "SPARED"),
    )
