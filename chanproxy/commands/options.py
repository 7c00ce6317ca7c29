"""
Options that are keys of the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from chanproxy.config.containers import ALL
from chanproxy.config.keys import Key
from chanproxy.config.kinds import (
    Items,
)
from chanproxy.config.options import helpOf

KEYS = {key.name: key for key in ALL if key.option}
"""Keys of a container."""


def containerOptions(*without: str) -> Callable[[Any], Any]:
    """
    Have a command take all keys of a container, each as what stands for it in a file.

    @param without: those that are said otherwise.
    """

    def decorate(command: Any) -> Any:
        for key in reversed(KEYS.values()):
            if key.name not in without:
                command = _option(key)(command)
        return command

    return decorate


def _option(key: Key) -> Callable[[Any], Any]:
    several = isinstance(key.kind, Items)

    def read(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value is None or value == ():
            return None
        found = list(value) if several else key.kind.fromText(value)
        try:
            key.kind.check(found)
        except ValueError as error:
            raise click.BadParameter(f"{error}; {key.kind.remedy(key.name, '')}") from None
        return found

    kind = click.Choice(key.kind.choices) if key.kind.choices else None
    return click.option(
        f"--{key.name}", type=kind, multiple=several, help=helpOf(key), callback=read
    )


def said(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a command's options that are keys and were said, by the keys' names."""
    names = {key.replace("-", "_"): key for key in KEYS}
    return {names[each]: value for each, value in options.items() if value is not None}
