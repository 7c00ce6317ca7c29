"""
Asking a running service: how all commands do that, and the exit status when there is no answer.

Knows nothing of what is shown.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from io import TextIOWrapper
from typing import NoReturn

import click

from chanproxy.commands.asked import PATIENCE, NoSuchContainer, Service
from chanproxy.commands.call import defaultSocket
from chanproxy.commands.where import Where, whereFrom
from chanproxy.guest import CallRefused, GuestError, ServiceGone
from chanproxy.words import safe

REFUSED, NO_SERVICE = 1, 3
"""Exit statuses: the service says no, or knows no such container; there is none that answers."""

COMPLETING = 1.0
"""Seconds to wait for an answer, for somebody who has pressed a key."""


def fail(text: str, status: int) -> NoReturn:
    """Say what is wrong, and exit."""
    click.echo(safe(f"chanproxy: {text}"), err=True)
    sys.exit(status)


def serviceAt(where: Where, patience: float = PATIENCE) -> Service:
    """
    One to be asked.

    @param patience: seconds to wait for an answer.
    @raise click.UsageError: it cannot be asked from here.
    """
    # Each is loaded where it is wanted.
    if where.url is None:
        from chanproxy.commands.local import LocalService

        return LocalService(where.path or defaultSocket(), patience)
    try:
        from chanproxy.commands.remote import RemoteService
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "treq":
            raise
        raise click.UsageError(
            "--url needs the package treq; pip install 'chanproxy[http]', or give --socket"
        ) from None
    try:
        return RemoteService(where.url, where.tokenFile, patience)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--token-file") from None


@contextlib.contextmanager
def asking(where: Where, name: str | None = None, patience: float = PATIENCE) -> Iterator[Service]:
    """
    Ask a service; exits with a sentence when it does not answer, or says no.

    @param where: what the options say.
    @param name: the container that it is about, if it is one.
    @param patience: see L{serviceAt}.
    """
    service = serviceAt(where, patience)
    if isinstance(sys.stdout, TextIOWrapper):
        # Names may have letters that a terminal has not.
        sys.stdout.reconfigure(errors="replace")
    try:
        yield service
    except NoSuchContainer as error:
        fail(str(error), REFUSED)
    except CallRefused as error:
        fail(service.sentence(error, name), REFUSED)
    except ServiceGone as error:
        fail(str(error), NO_SERVICE)
    except KeyboardInterrupt:
        # As a shell has it of a program that SIGINT ends; click would say that it aborts.
        sys.exit(130)
    finally:
        service.close()


def containerNames(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """For the completion of a shell: names that begin so; none when nobody answers."""
    given = context.params.get(parameter.name or "") or ()
    try:
        with contextlib.closing(serviceAt(whereFrom(context), COMPLETING)) as service:
            found, _, _ = service.containers()
    except (GuestError, OSError, click.UsageError):
        return []
    names = (each["name"] for each in found)
    return [name for name in names if name.startswith(incomplete) and name not in given]


jsonOption = click.option("--json", "asJson", is_flag=True, help="Print lines of JSON.")
containerArgument = click.argument("name", shell_complete=containerNames)
containersArgument = click.argument(
    "names", metavar="[NAME]...", nargs=-1, shell_complete=containerNames
)
