"""
C{chanproxy trace}: have a running service write down what it does.

Blocking, without a reactor.
"""

from __future__ import annotations

import signal
import sys

import click

from chanproxy.commands.call import defaultSocket
from chanproxy.commands.children import CannotRun, runChild
from chanproxy.commands.programs import ProgramCommand
from chanproxy.guest import Guest, GuestError


@click.command("trace", ProgramCommand)
@click.option("--socket", "path", metavar="PATH", help="The control socket.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "perfetto"]),
    default="json",
    show_default=True,
    help="Chrome's JSON, or Perfetto's own.",
)
@click.option("--seconds", type=click.FloatRange(min=0), help="How long; else until ^C.")
@click.argument("output", type=click.Path(dir_okay=False))
@click.argument("command", nargs=-1)
def trace(
    path: str | None, form: str, seconds: float | None, output: str, command: tuple[str, ...]
) -> None:
    """
    Write what the service does into OUTPUT: until interrupted, for some time, or while COMMAND
    runs.

    See it at https://ui.perfetto.dev, which keeps it in your browser.
    """
    waited = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    status = 0
    # The manager's calls that are about no container take no such name.
    with Guest("-", path or defaultSocket()) as guest:
        try:
            with open(output, "wb") as file:
                guest.call("StartTrace", {"container": None, "format": form}, file.fileno())
            if command:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                status = runChild(command)
            elif seconds is not None:
                signal.sigtimedwait(waited, seconds)
            else:
                signal.sigwait(waited)
            told = guest.call("StopTrace", {"container": None})
        except OSError as error:
            raise click.ClickException(f"{output}: {error.strerror}") from error
        except (GuestError, CannotRun) as error:
            raise click.ClickException(str(error)) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    click.echo(f"{output}: {told['events']} events, {told['bytes']} bytes", err=True)
    if not told["complete"]:
        click.echo(f"{output}: it ended early; the service's log says why", err=True)
        status = status or 1
    sys.exit(status)
