"""
Labels of a container: what a configuration says of it, said by whoever has started it.

C{chanproxy.linger=30s} is C{linger = "30s"} of its table, and
C{chanproxy.channels.http.listen=tcp:8080} that of a channel's.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve

from chanproxy.config.adoption import WAKE_ON
from chanproxy.config.channels import ALL as CHANNEL
from chanproxy.config.containers import ALL as CONTAINER
from chanproxy.config.containers import Container
from chanproxy.config.discovery import Discovery
from chanproxy.config.keys import Key
from chanproxy.config.kinds import Flag
from chanproxy.config.problems import ConfigurationError, Problem
from chanproxy.config.reading import fromTree
from chanproxy.config.tables import join
from chanproxy.endpoints.addresses import SocketAddress
from chanproxy.freezers.runtimes.composed import PROJECT

ENABLE = "enable"
"""The label without which a container is left alone."""

SELF = "self"
"""In place of the host of an address to connect to: the container itself."""

_KEYS = {key.name: key for key in CONTAINER}
_CHANNEL_KEYS = {key.name: key for key in CHANNEL}


def isEnabled(labels: Mapping[str, str], prefix: str) -> bool:
    """
    Whether a container is to be looked after.

    @raise ConfigurationError: nobody can know.
    """
    label = f"{prefix}.{ENABLE}"
    value = labels.get(label, "false")
    enabled = Flag().fromText(value.lower())
    if not isinstance(enabled, bool):
        raise ConfigurationError([Problem(label, f"is {value!r}", "write true or false")])
    return enabled


def containerOf(by: Discovery, name: str, labels: Mapping[str, str]) -> Container:
    """
    Read what a container's labels say.

    Without a channel it wakes by its own sockets.

    @param by: its engine.  Unless that trusts them, they name no socket but the container's own.
        An image has labels, too, which become those of the container: whoever has made it is not to
        have a service of root's connect somewhere.
    @raise ConfigurationError: with all problems, each with its label.
    """
    kind, prefix = by.name, by.prefix
    tree: dict[str, Any] = {}
    problems: list[Problem] = []
    for label, value in sorted(labels.items()):
        path, _, rest = label.partition(f"{prefix}.")
        if path or not rest or rest == ENABLE:
            continue
        words = rest.split(".")
        if len(words) == 3 and words[0] == "channels":
            channel = tree.setdefault("channels", {}).setdefault(words[1], {})
            channel[words[2]] = _value(_CHANNEL_KEYS, words[2], value, f"{kind}:{name}")
        elif len(words) != 1 or words[0] == "channels":
            remedy = f"write {prefix}.KEY, or {prefix}.channels.NAME.KEY"
            problems.append(Problem(label, "is not known", remedy))
        elif rest == "freezer":
            remedy = "leave it out"
            problems.append(Problem(label, "is the container that has this label", remedy))
        else:
            tree[rest] = _value(_KEYS, rest, value, f"{kind}:{name}")
    tree["freezer"] = f"{kind}:{name}"
    if "channels" not in tree:
        tree.setdefault(WAKE_ON.name, "sockets")
    if by.byProject and PROJECT in labels:
        tree.setdefault("group", labels[PROJECT])
    try:
        (container,) = fromTree({"containers": {name: tree}}).containers
    except ConfigurationError as error:
        problems += _asLabels(error.problems, name, prefix)
    if not problems and not by.trusted:
        problems += _beyond(container, kind, prefix)
    if problems:
        raise ConfigurationError(problems)
    # Not one of the file's, whose others would be woken by whoever has made an image.
    apart = container.group and not by.trusted
    return evolve(container, group=f"{kind}:{container.group}") if apart else container


def _beyond(container: Container, kind: str, prefix: str) -> Iterable[Problem]:
    """What is said that concerns others than the container."""
    remedy = f"{{}}; or write trusted = true in [discovery.{kind}], if all labels are your own"
    for channel in container.channels:
        path, listen = f"{prefix}.channels.{channel.name}", channel.listen
        if listen.scheme != "tcp" or listen.openTo() is not None:
            wrong = "is another place than a port of loopback"
            yield Problem(f"{path}.listen", wrong, remedy.format("write for example tcp:8080"))
        connect = channel.connect
        own = isinstance(connect, SocketAddress) and connect.engine == kind and connect.named[0]
        if own != container.name:
            wrong = "is another place than the container itself"
            yield Problem(f"{path}.connect", wrong, remedy.format("write self:PORT"))
    if container.control is not None:
        wrong = "is a file somewhere"
        yield Problem(f"{prefix}.control", wrong, remedy.format("leave it out"))


def _value(keys: Mapping[str, Key], name: str, text: str, itself: str) -> Any:
    if keys is _CHANNEL_KEYS and name == "connect" and text.startswith(f"{SELF}:"):
        return f"{itself}:{text.partition(':')[2]}"
    return keys[name].kind.fromText(text) if name in keys else text


def _asLabels(problems: Iterable[Problem], name: str, prefix: str) -> Iterable[Problem]:
    path = f"{join('containers', name)}."
    for each in problems:
        ours = each.path.startswith(path)
        yield evolve(each, path=f"{prefix}.{each.path.removeprefix(path)}") if ours else each
