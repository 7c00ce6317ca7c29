"""
C{chanproxy locks}: which wake locks are held, and by whom.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from chanproxy.commands.asking import asking, containersArgument, jsonOption, socketOption
from chanproxy.commands.reasons import holderFields, holderOf
from chanproxy.commands.showing import Moment, duration, jsonLine, table

HEAD = ("CONTAINER", "LOCK", "FOR", "UNTIL", "HELD BY")


@click.command("locks")
@socketOption
@jsonOption
@containersArgument
def locks(path: str | None, asJson: bool, names: tuple[str, ...]) -> None:
    """
    Show the wake locks that are held, and by whom.

    Those of all containers, or of these NAMEs.  A row for each who holds one.
    """
    with asking(path) as service:
        found, _ = service.some(names)
        # One that sleeps would be awake if a lock were held.
        awake = [each["name"] for each in found if each["state"] != "asleep"]
        described = [service.describe(name) for name in awake]
    rows = []
    for description in described:
        moment = Moment(description["now"])
        for lock, holder in _held(description):
            if asJson:
                (fields,) = holderFields([holder], moment)
                jsonLine({"name": description["name"], "lock": lock, **fields})
                continue
            until = holder.get("until")
            rows.append(
                (
                    *(description["name"], lock, duration(moment.ago(holder["since"]))),
                    "no limit" if until is None else moment.local(moment.unixOf(until)),
                    _by(holder),
                )
            )
    if rows:
        table(HEAD, rows, right=("FOR",))
    elif not asJson:
        click.echo("no wake lock is held")


def _held(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for source in description["sources"]:
        if source["kind"] == "lock":
            yield from ((source["name"], holder) for holder in source["holders"])


def _by(holder: dict[str, Any]) -> str:
    who = holderOf(holder)
    return f"nobody any more; acquired by {who}" if holder["lifetime"] == "service" and who else who
