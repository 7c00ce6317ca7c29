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
    woke it last.  What is left alone wants to sleep by its labels, and WHY says what is wrong with
    those.
    """
    with asking(where) as service:
        found, now, left = service.some(names)
    moment = Moment(now)
    rows = [Row.of(entry, moment) for entry in found]
    if asJson:
        for row in rows:
            jsonLine(row.fields())
        for each in left:
            jsonLine({**each, "state": "left_alone"})
        return
    alone = [
        (each["name"], "left alone", "", "", "", f"of {each['engine']}: {each['why']}")
        for each in left
    ]
    table(
        HEAD,
        [*(_cells(row, moment) for row in rows), *alone],
        right=("FOR", "ASLEEP", "SPARED"),
    )


def _cells(row: Row, moment: Moment) -> tuple[str, ...]:
    seconds = duration(row.seconds)
    return row.name, row.shownState, seconds, *row.worth, row.reason(moment)
