"""
The command line of a command that starts a program: which words are ours, and which the program's.
"""

from __future__ import annotations

import math

import click

from chanproxy.commands.stopping import GRACE
from chanproxy.config.kinds import LONGEST, Seconds
from chanproxy.words import brief

_GRACE = Seconds(0, LONGEST)


class ProgramCommand(click.Command):
    """
    One argument, and a program with its arguments.

    The program begins after C{--}, or with the second word that is neither an option nor its value.
    All before it is ours, all after it its own.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See C{click.Command}."""
        values = {
            name: 0 if option.is_flag else option.nargs
            for option in self.get_params(ctx)
            if isinstance(option, click.Option)
            for name in (*option.opts, *option.secondary_opts)
        }
        index = begin = self._program(args, values)
        if index < len(args) and args[index] == "--":
            begin += 1
        else:
            self._refuseLate(ctx, args[index:], values)
        program = ["--", *args[begin:]] if begin < len(args) else []
        try:
            return super().parse_args(ctx, [*args[:index], *program])
        except click.NoSuchOption as error:
            text = error.format_message().removesuffix(".")
            raise click.UsageError(
                f"{text}; if it is the program's, write -- before the program", ctx
            ) from None

    def _program(self, args: list[str], values: dict[str, int]) -> int:
        """@return: where it begins, or the C{--} before it."""
        index = words = 0
        while index < len(args) and args[index] != "--":
            word = args[index]
            if word.startswith("-") and len(word) > 1:
                # Of one that is not known it is said afterwards.
                index += 0 if "=" in word else values.get(word, 0)
            elif words:
                break
            else:
                words += 1
            index += 1
        return min(index, len(args))

    def _refuseLate(self, ctx: click.Context, program: list[str], values: dict[str, int]) -> None:
        for word in program[1:]:
            if word == "--":
                return
            name = word.partition("=")[0]
            if name in values and name not in self.get_help_option_names(ctx):
                raise click.UsageError(
                    f"{name} stands behind the program {brief(program[0])}: write it before that;"
                    " or, if it is the program's, write -- before the program",
                    ctx,
                )


def _grace(context: click.Context, parameter: click.Parameter, value: str) -> float:
    if value == _GRACE.none:
        return math.inf
    try:
        return float(_GRACE.check(_GRACE.fromText(value)))
    except ValueError as error:
        raise click.BadParameter(f"{error}; {_GRACE.remedy('', '')}") from None


graceOption = click.option(
    "--grace",
    metavar="SECONDS",
    default=f"{GRACE:g}s",
    show_default=True,
    callback=_grace,
    help="How long what is told to end may take, until it is killed; never: as long as it takes.",
)
"""A number of seconds."""

replaceOption = click.option(
    "--replace",
    is_flag=True,
    help="First end what the same command has left running that was killed.",
)
