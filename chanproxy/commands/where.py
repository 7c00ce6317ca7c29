"""
Where a command looks for its service: the options that say so, and what they may be.

Knows words; asks nobody.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import click
from attrs import frozen
from click.core import ParameterSource

from chanproxy.words import brief

EXAMPLES = "http://127.0.0.1:8080, or unix:/run/chanproxy/http.sock"


@frozen
class Url:
    """
    Where a service answers over HTTP.

    @ivar text: as it was written.
    @ivar path: of its socket; empty: it is none of a path.
    @ivar netloc: what requests are sent for.
    @ivar tls: whether it is asked by TLS.
    @ivar below: what all its paths begin with, for one behind a proxy.
    """

    text: str
    path: str = ""
    netloc: str = "localhost"
    host: str = ""
    port: int = 0
    tls: bool = False
    below: str = ""

    @classmethod
    def parse(cls, text: str) -> Url:
        """
        Read one.

        @raise ValueError: what is wrong, and what to write.
        """
        kind, _, rest = text.partition(":")
        if kind == "unix" and rest and not rest.startswith("//"):
            return cls(text, path=rest)
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"{brief(text)} is no URL: {error}; write {EXAMPLES}") from None
        if kind not in ("http", "https") or not host:
            raise ValueError(f"{brief(text)} is no URL of a service; write {_better(text)}")
        if "@" in parts.netloc:
            # It is not repeated.
            raise ValueError(
                "a password in a URL can be read by others; write the token into a file, "
                "and give --token-file"
            )
        if parts.query or parts.fragment or not text.isascii() or not text.isprintable():
            raise ValueError(f"{brief(text)} has more than an address and a path; write {EXAMPLES}")
        tls = kind == "https"
        below = parts.path.rstrip("/")
        return cls(text, "", parts.netloc, host, port or (443 if tls else 80), tls, below)


def _better(text: str) -> str:
    """What may have been meant."""
    kind, _, rest = text.partition(":")
    if kind in ("http+unix", "unix") and rest.lstrip("/"):
        return f"unix:/{rest.lstrip('/')}"
    if text.startswith("/"):
        return f"unix:{text}"
    if kind == "tcp" and rest.isdigit():
        return f"http://127.0.0.1:{rest}"
    if rest.isdigit() and kind.isascii():
        return f"http://{text}"
    return EXAMPLES


@frozen
class Where:
    """
    What was said of it.

    @ivar path: of the control socket; None: where it is by default.
    @ivar url: over HTTP instead.
    @ivar tokenFile: where the token for that is.
    """

    path: str | None = None
    url: Url | None = None
    tokenFile: str | None = None


def whereFrom(context: click.Context) -> Where:
    """
    What a command line says, also one that is not complete yet.

    @raise click.UsageError: it is said twice, or wrongly.
    """
    path, url, tokenFile = map(context.params.get, ("path", "url", "tokenFile"))

    def written(name: str) -> bool:
        return context.get_parameter_source(name) is ParameterSource.COMMANDLINE

    if path is not None and url is not None and written("url"):
        raise click.UsageError("--socket and --url name two services; give one of them")
    if url is None or path is not None:
        if tokenFile is not None and written("tokenFile"):
            raise click.UsageError("--token-file is for a service over HTTP; give --url as well")
        return Where(path)
    try:
        return Where(None, Url.parse(url), tokenFile)
    except ValueError as error:
        hint = "--url" if written("url") else "$CHANPROXY_URL"
        raise click.BadParameter(str(error), param_hint=hint) from None


socketOption = click.option("--socket", "path", metavar="PATH", help="The control socket.")

_urlOption = click.option(
    "--url",
    metavar="URL",
    envvar="CHANPROXY_URL",
    help="Ask over HTTP instead: http://HOST:PORT, or unix:PATH.",
)

_tokenOption = click.option(
    "--token-file",
    "tokenFile",
    metavar="PATH",
    envvar="CHANPROXY_TOKEN_FILE",
    help="The file of the token for that.",
)


def whereOptions(command: Callable[..., None]) -> Callable[..., None]:
    """Have a command say where its service is; it gets a L{Where} for that, C{where}."""

    @functools.wraps(command)
    def asked(path: str | None, url: str | None, tokenFile: str | None, **others: Any) -> None:
        command(where=whereFrom(click.get_current_context()), **others)

    return socketOption(_urlOption(_tokenOption(asked)))
