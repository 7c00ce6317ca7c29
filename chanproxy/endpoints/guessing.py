r"""
What somebody may have meant by an address that is none: C{localhost:8080}, C{/run/a.sock}.

Pure text: candidates only, of which whoever asks takes the first that is an address.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<place>[^/?#]+)(?:[/?#].*)?", re.I)
_PORT = re.compile(r"\d{1,5}", re.ASCII)
_HOST = re.compile(r"[\w.%*-]*", re.ASCII)
_SECURE = {"https": "443", "wss": "443", "tls": "443", "ssl": "443"}
_PLAIN = {"http": "80", "ws": "80", "tcp": ""}
_EVERYWHERE = ("*", "0.0.0.0", "::", "")
_NO_HOSTS = ("udp", "fd", "stdio", "file", "pipe")
"""What looks like a host's name before a port, and is a kind that there is not."""

_SHOWN = "8080"
"""Where there has to be a port, and none is written."""

_PATHS = ("unix", "seqpacket")
_NAMES = ("path", "address", "name", "file")
_ARGUMENTS = {each: each for each in ("mode", "backlog", "unlink")}
_ARGUMENTS |= {"permissions": "mode", "perm": "mode"}
_SWITCHES = dict.fromkeys(("yes", "true", "1", "on"), "yes")
_SWITCHES |= dict.fromkeys(("no", "false", "0", "off"), "no")

EXAMPLES: Mapping[str, tuple[str, str]] = {
    "seqpacket": ("seqpacket:/run/a.sock", "seqpacket:/run/a.sock"),
    "unix": ("unix:/run/a.sock", "unix:/run/a.sock"),
    "tcp": ("tcp:8080", "tcp:localhost:8080"),
    "tcp6": ("tcp6:8080", r"tcp:\:\:1:8080"),
    "vsock": ("vsock:1024", "vsock:host:1024"),
    "docker": ("tcp:8080", "docker:web:80"),
    "podman": ("tcp:8080", "podman:web:80"),
    "systemd": ("systemd:domain=UNIX:index=0", "seqpacket:/run/a.sock"),
    "tls": ("ssl:8443:privateKey=key.pem:certKey=cert.pem", "tls:example.org:443"),
    "ssl": ("ssl:8443:privateKey=key.pem:certKey=cert.pem", "ssl:example.org:443"),
}
"""Of each kind an address to listen at, and one to connect to."""


def escaped(value: str) -> str:
    """A value inside an address."""
    return "".join(f"\\{each}" if each in "\\:=" else each for each in value)


def guesses(description: str, listening: bool, kinds: Sequence[str]) -> Iterator[str]:
    """
    Candidates, the likeliest first; not all of them are addresses.

    @param kinds: those that there are.
    """
    text = description.strip()
    kind, colon, rest = text.partition(":")
    kind, rest = kind.strip(), rest.strip()
    if url := _URL.fullmatch(text):
        yield from _ofUrl(url["scheme"].lower(), url["place"], listening)
    elif text[:1] in ("/", "@"):
        yield from _ofText([each for each in _PATHS if each in kinds], text, listening)
    if colon and kind.lower() in kinds:
        yield f"{kind.lower()}:{rest}"
        yield from _ofKind(kind.lower(), rest, listening)
        return
    if kind.lower() not in _NO_HOSTS:
        yield from _ofHost(text, listening)
    if colon:
        for near in difflib.get_close_matches(kind.lower()[:40], kinds, 1):
            yield f"{near}:{rest}"
            yield from _ofKind(near, rest, listening)


def _ofKind(kind: str, rest: str, listening: bool) -> Iterator[str]:
    pieces = re.split(r"(?<!\\):", rest)
    options = dict(each.split("=", 1) for each in pieces if "=" in each)
    options = {name.strip().lower(): value.strip() for name, value in options.items()}
    if kind in _PATHS:
        named = [options[name] for name in _NAMES if name in options]
        path = next((each for each in pieces if "=" not in each), "") or next(iter(named), "")
        yield from _ofPath((kind,), path, (each for each in pieces if each != path), listening)
    elif kind in ("tcp", "tcp6"):
        host, port = options.get("host", ""), options.get("port", "")
        yield from _ofHost(f"{host}:{port}" if port else rest.lstrip("/"), listening)
        if listening and (interface := re.search(r"interface=(.*)$", rest)):
            yield from _ofHost(f"{interface[1] or '*'}:{pieces[0]}", True)
        if listening:
            yield f"{kind}:{port or pieces[0]}"
        elif pieces[0] and not _PORT.fullmatch(pieces[0]):
            yield f"tcp:{pieces[0].lstrip('/')}:{_SHOWN}"
    elif kind == "vsock":
        port = next((each for each in reversed(pieces) if each.isdigit()), "1024")
        everywhere = ":cid=any" if "any" in (*pieces, options.get("cid")) else ""
        yield f"vsock:{port}{everywhere}" if listening else f"vsock:host:{port}"
    elif kind == "systemd" and listening:
        domain = options.get("domain", "UNIX").upper()
        index = next((each for each in (options.get("index", ""), *pieces) if each.isdigit()), "0")
        which = f"name={options['name']}" if "name" in options else f"index={index}"
        yield f"systemd:domain={domain}:{which}"
        yield f"systemd:domain=UNIX:{which}"


def _ofUrl(scheme: str, place: str, listening: bool) -> Iterator[str]:
    host, port = _split(place) or (place, "")
    port = port or _PLAIN.get(scheme, "") or _SECURE.get(scheme, "")
    if scheme in _SECURE and not listening:
        yield f"tls:{escaped(host)}:{port}"
    else:
        yield from _ofHost(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", listening)


def _split(text: str) -> tuple[str, str] | None:
    """Host and port, of C{host:80}, C{[::1]:80}, C{::1:80}, C{80} and the like."""
    text = text.replace("\\", "").strip()
    if _PORT.fullmatch(text):
        return "", text
    host, colon, port = text.rpartition(":")
    host, port = host.strip().removeprefix("[").removesuffix("]"), port.strip()
    if not colon or not _PORT.fullmatch(port):
        return None
    if ":" in host:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return None
    elif not _HOST.fullmatch(host):
        return None
    return host, port


def _ofHost(text: str, listening: bool) -> Iterator[str]:
    found = _split(text)
    if found is None:
        return
    host, port = found
    if not listening:
        yield f"tcp:{'localhost' if host in _EVERYWHERE else escaped(host)}:{port}"
        return
    if host == "*":
        host = "0.0.0.0"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        yield f"tcp:{port}"
    else:
        yield f"tcp:{port}:interface={escaped(host)}"


def _ofText(kinds: Sequence[str], text: str, listening: bool) -> Iterator[str]:
    """A path without a kind, with arguments or with colons in it."""
    path, *arguments = text.split(":")
    if any("=" in each or _octal(each) for each in arguments):
        yield from _ofPath(kinds, path, arguments, listening)
    else:
        yield from _ofPath(kinds, escaped(text), (), listening)


def _ofPath(
    kinds: Sequence[str], path: str, arguments: Iterable[str], listening: bool
) -> Iterator[str]:
    kept = dict(_kept(arguments) if listening else ())
    path = re.sub("^//+", "/", path)
    if path[:1] not in ("/", "@"):
        path = f"/run/{path.lstrip('~./')}"
    if path.endswith("/") or path == "@":
        path += "a.sock"
    for kind in kinds:
        yield ":".join([kind, path, *(f"{name}={value}" for name, value in kept.items())])
        yield f"{kind}:{path}"


def _kept(arguments: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What can be made of the arguments of a path."""
    for each in arguments:
        name, _, value = each.partition("=")
        near = difflib.get_close_matches(name.lower()[:40], _ARGUMENTS, 1)
        name = _ARGUMENTS[near[0]] if near else name
        if name == "mode" or _octal(name):
            yield "mode", _octal(value or name) or "600"
        elif name == "backlog" and _PORT.fullmatch(value) and 0 < int(value) <= 65535:
            yield "backlog", value
        elif name == "unlink" and value.lower() in _SWITCHES:
            yield "unlink", _SWITCHES[value.lower()]


def _octal(text: str) -> str:
    found = re.fullmatch(r"0?o?([0-7]{3})", text)
    return found[1] if found else ""
