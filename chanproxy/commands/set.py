"""
C{chanproxy set}: change keys of a container that runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import click

from chanproxy.commands.asking import (
    asking,
    containerArgument,
    jsonOption,
)
from chanproxy.commands.showing import jsonLine
from chanproxy.commands.where import Where, socketOption
from chanproxy.config.containers import ALL
from chanproxy.config.setting import SETTABLE
from chanproxy.words import brief, meant, safe

KEYS = {key.name: key for key in ALL}


def _completed(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """For the completion of a shell: names of keys."""
    return [f"{name}=" for name in SETTABLE if name.startswith(incomplete)]


@click.command("set")
@socketOption
@jsonOption
@containerArgument
@click.argument(
    "values", metavar="KEY=VALUE...", nargs=-1, required=True, shell_complete=_completed
)
def command(path: str | None, asJson: bool, name: str, values: Sequence[str]) -> None:
    """
    Change keys of the container NAME while it runs.

    The keys are those of its table in the configuration; with commas, where that has a list.  KEY=
    without a value: as it is written there.  All of them are changed, or none.  It lasts until the
    service is stopped or reloaded.
    """
    parameters = _parameters(values)
    with (
        asking(Where(path), name) as service,
        service.begin("SetContainer", name=name, **parameters) as setting,
    ):
        changed = setting.answer()["changed"]
    if asJson:
        jsonLine({"name": name, "changed": changed})
        return
    for each in changed:
        click.echo(safe(f"{name}: {each['key']} is {each['now']}, and was {each['before']}"))
    if not changed:
        click.echo(safe(f"{name}: nothing has changed"))


def _parameters(values: Sequence[str]) -> dict[str, Any]:
    """What is said, as parameters of the call."""
    found: dict[str, Any] = {}
    back: list[str] = []
    for each in values:
        word, equals, value = each.partition("=")
        if not equals:
            raise click.UsageError(f"{brief(each)} is no KEY=VALUE, such as linger=2")
        if word.partition(".")[0] == "channels":
            found["channels"] = {}
            continue
        if word not in KEYS:
            known = meant(word.replace("_", "-"), SETTABLE)
            raise click.UsageError(f"there is no key {brief(word)} that can be set; {known}")
        key = KEYS[word]
        if key.parameter in found or key.parameter in back:
            raise click.UsageError(f"{word} is said twice; leave out one of them")
        if value or word not in SETTABLE:
            read = key.kind.fromText(value) if value else "-"
            # JSON has no such numbers, and no key takes one.
            isNone = isinstance(read, float) and not math.isfinite(read)
            found[key.parameter] = value if isNone else read
        else:
            back.append(key.parameter)
    return {**found, "back": back} if back else found
