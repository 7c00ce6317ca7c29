"""
The C{chanproxy} command, for operators.

A command's module is loaded when the command is named, so that none waits for what others need.
"""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS = {
    "call": "call:command",
    "demo": "demo:demo",
    "hold": "run:hold",
    "reload": "reload:reload",
    "run": "run:run",
    "thaw": "thaw:thaw",
    "trace": "trace:trace",
    "watch": "watch:command",
}
"""Modules of this room, and what is the command in each."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module, _, attribute = COMMANDS.get(cmd_name, "").partition(":")
        if not module:
            return None
        found = getattr(import_module(f"chanproxy.commands.{module}"), attribute)
        assert isinstance(found, click.Command)
        return found


def _version(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    # What keeps the version is loaded for nothing else.
    from chanproxy import __version__

    click.echo(f"{context.find_root().info_name}, version {__version__}")
    context.exit()


@click.group(cls=_Commands)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Freeze idle containers; lose nothing; wake on the first message."""
