"""
Options that are keys of the configuration.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import click

from chanproxy.config.containers import ALL
from chanproxy.config.keys import Key
from chanproxy.config.kinds import Items, Several, Text
from chanproxy.config.options import helpOf
from chanproxy.words import Wrong

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
                command = _made(key)(command)
        return command

    return decorate


def _made(key: Key) -> Callable[[Any], Any]:
    several = isinstance(key.kind, Items)

    def read(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value is None or value == ():
            return None
        found = list(value) if several else key.kind.fromText(value)
        try:
            key.kind.check(found)
        except ValueError as error:
            errors = error.args if isinstance(error, Several) else (error,)
            raise click.BadParameter("; ".join(_lines(key, errors))) from None
        return found

    kind = click.Choice(key.kind.choices) if key.kind.choices else None
    return click.option(
        f"--{key.name}", type=kind, multiple=several, help=helpOf(key), callback=read
    )


def _lines(key: Key, errors: Iterable[Exception]) -> Iterator[str]:
    """What is wrong with what was said of a key; and what to say, as on a command line."""
    remedy = key.kind.remedy(key.name, "container")
    if isinstance(key.kind, Text):
        remedy = f"say for example {_option(key, key.kind.example.format('container'))}"
    for error in errors:
        if isinstance(error, Wrong):
            remedy = f"say {_option(key, error.better[0])}" if error.better else remedy
            # A word of a command line always is.
            yield error.wrong.replace("is a text", "it is no number")
        else:
            yield str(error)
    yield remedy


def _option(key: Key, value: Any) -> str:
    """A key with its value, as it is said in a shell."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return " ".join(f"--{key.name} {shlex.quote(str(each))}" for each in values)


def said(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a command's options that are keys and were said, by the keys' names."""
    names = {key.replace("-", "_"): key for key in KEYS}
    return {names[each]: value for each, value in options.items() if value is not None}
