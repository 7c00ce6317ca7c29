"""
C{chanproxy call}: one call of the manager from a shell.

Blocking, without a reactor: it has nothing else to do.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

import click

from chanproxy.kernel.rundirectory import runtimeDirectory
from chanproxy.manager.errors import MANAGER, VarlinkError
from chanproxy.manager.varlink import encodeCall, parseReply
from chanproxy.words import safe

LARGEST_REPLY = 1 << 20
"""Bytes; replies are far smaller."""


def defaultSocket() -> str:
    """C{$CHANPROXY_CONTROL}, or C{control.sock} in the runtime directory."""
    return os.environ.get("CHANPROXY_CONTROL") or os.path.join(runtimeDirectory(), "control.sock")


def readParameters(words: Sequence[str]) -> dict[str, Any]:
    """
    Make parameters of the words of a command line.

    @param words: JSON objects, and C{NAME=VALUE}, whose value is JSON or else a text.
    """
    parameters: dict[str, Any] = {}
    for word in words:
        if word.startswith("{"):
            try:
                tree = _parse(word)
            except (ValueError, RecursionError) as error:
                raise click.BadParameter(f"{word!r} is no JSON object: {error}") from None
            parameters.update(tree)
            continue
        name, equals, value = word.partition("=")
        if not equals:
            raise click.BadParameter(f"{word!r} is neither NAME=VALUE nor a JSON object")
        try:
            parameters[name] = _parse(value)
        except (ValueError, RecursionError):
            parameters[name] = value
    return parameters


def _parse(text: str) -> Any:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def call(
    path: str, method: str, words: Sequence[str], descriptors: Sequence[int], more: bool
) -> int:
    """
    Call, and print each reply as a line of JSON.

    @return: the exit status: 0, or 1 when the service answered with an error or not at all.
    """
    full = method if "." in method else f"{MANAGER}.{method}"
    try:
        packet = encodeCall(full, readParameters(words), more=more)
    except ValueError as error:
        raise click.BadParameter(f"{' '.join(words)}: {error}") from None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        try:
            control.connect("\0" + path[1:] if path.startswith("@") else path)
        except OSError as error:
            # A path that is too long has no error of the system.
            click.echo(
                f"{path}: {error.strerror or error}; is the service running, with this control "
                "socket? Give --socket PATH, or set CHANPROXY_CONTROL",
                err=True,
            )
            return 1
        try:
            socket.send_fds(control, [packet], descriptors)
        except OSError as error:
            click.echo(f"{path}: the call cannot be sent: {error.strerror}", err=True)
            return 1
        while True:
            try:
                # Of descriptors there is no room for any, and the kernel closes them: whoever wants
                # one has to speak to the socket itself.
                data = control.recv(LARGEST_REPLY)
            except OSError as error:
                click.echo(f"{path}: {error.strerror}", err=True)
                return 1
            if not data:
                click.echo(f"{path}: the service has closed the connection", err=True)
                return 1
            try:
                reply = parseReply(data)
            except VarlinkError as error:
                click.echo(safe(f"{error.error}: {error}"), err=True)
                return 1
            print(json.dumps(reply.parameters), flush=True)
            if not reply.continues:
                return 0


@click.command("call")
@click.argument("method")
@click.argument("parameters", nargs=-1)
@click.option("--socket", "path", metavar="PATH", help="The control socket.")
@click.option(
    "--fd",
    "descriptors",
    type=click.IntRange(0, 2**31 - 1),
    multiple=True,
    help="Pass this descriptor; in order.",
)
@click.option("--more", is_flag=True, help="Print replies as long as they come.")
def command(
    method: str,
    parameters: tuple[str, ...],
    path: str | None,
    descriptors: tuple[int, ...],
    more: bool,
) -> None:
    """
    Call METHOD of a running service, with NAME=VALUE or JSON as PARAMETERS.

    For example: chanproxy call SuspendContainer container=editor timeout=60
    """
    sys.exit(call(path or defaultSocket(), method, parameters, descriptors, more))
