"""
C{chanproxy reload}: have a running service read its configuration again.

Blocking, without a reactor.
"""

from __future__ import annotations

import sys

import click

from chanproxy.commands.call import defaultSocket
from chanproxy.config.changes import Reloaded
from chanproxy.guest import CallRefused, Guest, GuestError
from chanproxy.words import safe

PATIENCE = 300.0
"""Seconds to wait for the service, which may have thousands of containers to start."""


@click.command("reload")
@click.option("--socket", "path", metavar="PATH", help="The control socket.")
def reload(path: str | None) -> None:
    """
    Have a running service follow its configuration file as it is now.

    Prints what has changed, when that is done.  What did not change goes on undisturbed.  If the
    file cannot be used, all that is wrong is said, the service goes on as before, and the exit
    status is 1.
    """
    # The manager's calls that are about no container take no such name.
    with Guest("-", path or defaultSocket(), PATIENCE) as guest:
        try:
            answer = guest.call("Reload", {"container": None})
        except CallRefused as error:
            for problem in error.parameters.get("problems") or [str(error)]:
                click.echo(safe(f"chanproxy: {problem}"), err=True)
            sys.exit(1)
        except GuestError as error:
            click.echo(safe(f"chanproxy: {error}"), err=True)
            sys.exit(1)
    for sentence in list(Reloaded.fromTree(answer).sentences()) or ["nothing has changed"]:
        click.echo(safe(sentence))
