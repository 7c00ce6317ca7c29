"""
C{chanproxy why}: why a container is awake, or until when it sleeps.
"""

from __future__ import annotations

import click

from chanproxy.commands.asking import asking, containerArgument, jsonOption
from chanproxy.commands.reasons import Reasons
from chanproxy.commands.showing import jsonLine, width, wrapped
from chanproxy.commands.where import Where, whereOptions
from chanproxy.words import safe


@click.command("why")
@whereOptions
@jsonOption
@containerArgument
def why(where: Where, asJson: bool, name: str) -> None:
    """
    Say why the container NAME is awake or asleep.

    Awake: what keeps it awake, since when, and who holds it.  Asleep: what will wake it, and what
    woke it last.
    """
    with asking(where, name) as service:
        reasons = Reasons(service.describe(name))
    if asJson:
        jsonLine(reasons.fields())
        return
    for sentence in reasons.sentences():
        for line in wrapped(safe(sentence), width()):
            click.echo(line)
