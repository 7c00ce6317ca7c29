"""
C{chanproxy locks}: which wake locks are held, and by whom.
"""

from __future__ import annotations

from typing import Any

import click

from chanproxy.commands.asking import asking, containersArgument, jsonOption
from chanproxy.commands.reasons import holderFields, holderOf
from chanproxy.commands.showing import Moment, duration, jsonLine, table
from chanproxy.commands.where import Where, whereOptions

HEAD = ("CONTAINER", "LOCK", "FOR", "UNTIL", "HELD BY")


@click.command("locks")
@whereOptions
@jsonOption
@containersArgument
def locks(where: Where, asJson: bool, names: tuple[str, ...]) -> None:
    """
    Show the wake locks that are held, and by whom.

    Those of all containers, or of these NAMEs.  A row for each who holds one.
    """
    with asking(where) as service:
        found, _, _ = service.some(names)
        # One that sleeps would be awake if a lock were held.
        awake = [each["name"] for each in found if each["state"] != "asleep"]
        described = list(service.described(awake))
    rows = []
    for description in described:
        moment = Moment(description["now"])
        for lock in (each for each in description["sources"] if each["kind"] == "lock"):
            place = description["name"], lock["name"]
            if asJson:
                for fields in holderFields(lock["holders"], moment):
                    jsonLine({"name": place[0], "lock": place[1], **fields})
            rows += [(*place, *_cells(holder, moment)) for holder in lock["holders"]]
            more = lock["holder_count"] - len(lock["holders"])
            if more:
                rows.append((*place, "", "", f"{more} others"))
    if asJson:
        return
    if rows:
        table(HEAD, rows, right=("FOR",))
    else:
        click.echo("no wake lock is held")


def _cells(holder: dict[str, Any], moment: Moment) -> tuple[str, str, str]:
    until = holder.get("until")
    end = "no limit" if until is None else moment.local(moment.unixOf(until))
    return duration(moment.ago(holder["since"])), end, _by(holder)


def _by(holder: dict[str, Any]) -> str:
    who = holderOf(holder)
    return f"nobody any more; acquired by {who}" if holder["lifetime"] == "service" and who else who
