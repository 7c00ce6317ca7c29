"""
The C{chanproxy} command, for operators.

A command's module is loaded when the command is named, so that none waits for what others need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "call": "call:command",
    "check": "check:command",
    "demo": "demo:demo",
    "doctor": "doctor.command:command",
    "events": "events:events",
    "hold": "run:hold",
    "install": "install:install",
    "locks": "locks:locks",
    "pause": "pause:pause",
    "ps": "ps:ps",
    "reload": "reload:reload",
    "report": "report:report",
    "resume": "sleep:resume",
    "run": "run:run",
    "set": "set:command",
    "suspend": "sleep:suspend",
    "thaw": "thaw:thaw",
    "top": "top:top",
    "trace": "trace:trace",
    "unpause": "pause:unpause",
    "watch": "watch:command",
    "why": "why:why",
}
"""Modules of this room, and what is the command in each."""

BEHIND = {"--socket": "PATH", "--url": "URL", "--token-file": "PATH", "--json": ""}
"""Options of most commands, and what their values are."""


class Commands(click.Group):
    """Those of the table, each loaded when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module, _, attribute = COMMANDS.get(cmd_name, "").partition(":")
        if not module:
            return None
        found = getattr(import_module(f"chanproxy.commands.{module}"), attribute)
        assert isinstance(found, click.Command)
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            option, name = error.option_name, next(filter(COMMANDS.__contains__, words), "ps")
            if option in BEHIND and self._has(ctx, name, option):
                there = f"{ctx.info_name} {name} {option} {BEHIND[option]}".rstrip()
                ctx.fail(f"No such option '{option}'; it stands behind the command: {there}")
            raise

    def _has(self, ctx: click.Context, name: str, option: str) -> bool:
        command = self.get_command(ctx, name)
        return command is not None and any(option in each.opts for each in command.params)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = args[0] in COMMANDS or args[0].startswith("-")
        if not known and not ctx.resilient_parsing:
            # Who completes a word in a shell is not told.
            from chanproxy.words import brief, meant

            near = meant(args[0], COMMANDS)
            # All of them are too many for a line.
            hint = near if near.endswith("?") else f"{ctx.info_name} --help lists them"
            ctx.fail(f"No such command {brief(args[0])}; {hint}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names alone, and no help: none is loaded for it."""
        from click.shell_completion import CompletionItem

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*map(CompletionItem, names), *options]


def _version(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    # What keeps the version is loaded for nothing else.
    from chanproxy import __version__

    click.echo(f"{context.find_root().info_name}, version {__version__}")
    context.exit()


@click.group(cls=Commands)
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
