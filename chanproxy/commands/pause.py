"""
C{chanproxy pause} and C{chanproxy unpause}: have a container sleep, whatever comes, until told
otherwise.
"""

from __future__ import annotations

from contextlib import closing

import click

from chanproxy.commands.asking import REFUSED, asking, containerArgument, fail, jsonOption
from chanproxy.commands.reasons import byCommand
from chanproxy.commands.showing import jsonLine
from chanproxy.commands.where import Where, whereOptions
from chanproxy.guest import SuspendFailure
from chanproxy.words import safe


@click.command("pause")
@whereOptions
@jsonOption
@containerArgument
def pause(where: Where, asJson: bool, name: str) -> None:
    """
    Stop the container NAME as it is, until it is unpaused.

    Whatever it has to do waits, and so does whatever comes for it: nothing but chanproxy unpause
    wakes it, and the end of the service.  Who connects to one of its channels meanwhile is told;
    see the key when-paused.  Returns when it is stopped.
    """
    with (
        asking(where, name) as service,
        closing(service.begin("PauseContainer", container=name, by=byCommand("pause"))) as pausing,
    ):
        try:
            pausing.answer()
        except SuspendFailure as error:
            fail(f"{name} is not paused: {error}", REFUSED)
    if asJson:
        jsonLine({"name": name, "paused": True})
    else:
        click.echo(safe(f"{name} is paused; who connects to a socket of its own waits"))


@click.command("unpause")
@whereOptions
@jsonOption
@containerArgument
def unpause(where: Where, asJson: bool, name: str) -> None:
    """
    Wake the container NAME, if it is paused.

    Returns when it is awake.  It may sleep again as soon as it is idle.
    """
    with (
        asking(where, name) as service,
        closing(
            service.begin("UnpauseContainer", container=name, reason=byCommand("unpause"))
        ) as asked,
    ):
        was = asked.answer()["paused"]
    if asJson:
        jsonLine({"name": name, "paused": False, "was_paused": was})
    else:
        click.echo(safe(f"{name} is awake" if was else f"{name} was not paused"))
