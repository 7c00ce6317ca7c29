"""
A configuration that a program has filled in by hand: whether it could stand in a file.

Pure; what is read already is not read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from chanproxy.adopt.settings import Adoption
from chanproxy.config.access import KEYS as ACCESS
from chanproxy.config.access import AccessEntry
from chanproxy.config.adoption import KEYS as ADOPTION
from chanproxy.config.channels import KEEPALIVE, Channel, checkEnds
from chanproxy.config.channels import KEYS as CHANNEL
from chanproxy.config.containers import KEYS as CONTAINER
from chanproxy.config.containers import Container, checkTogether
from chanproxy.config.discovery import KEYS as DISCOVERY
from chanproxy.config.discovery import Discovery
from chanproxy.config.history import KEYS as HISTORY
from chanproxy.config.history import History
from chanproxy.config.keys import Key
from chanproxy.config.limits import KEYS as LIMITS
from chanproxy.config.limits import Limits
from chanproxy.config.problems import Problem
from chanproxy.config.reading import KEYS, Configuration, checkHttp
from chanproxy.config.scheduling import KEYS as SCHEDULING
from chanproxy.config.scheduling import Scheduling
from chanproxy.config.tables import isName, join
from chanproxy.kernel.keepalive import Keepalive
from chanproxy.words import Wrong, brief


def problemsOf(configuration: Configuration) -> list[Problem]:
    """All that is wrong with one; of one that was read from a file, nothing is."""
    problems: list[Problem] = []
    _values(configuration, KEYS, "", problems)
    for made, cls, keys, path in (
        (configuration.limits, Limits, LIMITS, "limits"),
        (configuration.scheduling, Scheduling, SCHEDULING, "scheduling"),
        (configuration.history, History, HISTORY, "history"),
    ):
        if _is(made, cls, path, problems):
            _values(made, keys, path, problems)
    for engine in _all(configuration.discovery, Discovery, "discovery", problems):
        _values(engine, DISCOVERY, join("discovery", engine.name), problems)
    for entry in _all(configuration.access, AccessEntry, "access", problems):
        _values(entry, ACCESS, join("access", entry.name), problems)
    containers = _all(configuration.containers, Container, "containers", problems)
    for container in containers:
        problems += _ofContainer(container)
    if not problems:
        checkTogether(containers, configuration.sockets, problems)
        note = partial(_note, problems, "")
        checkHttp(note, configuration.http, configuration.httpTokenFile)
    return problems


def problemsOfContainer(container: Container) -> list[Problem]:
    """Likewise, of one container."""
    problems: list[Problem] = []
    if _all((container,), Container, "containers", problems):
        problems += _ofContainer(container)
    if not problems:
        checkTogether([container], {}, problems)
    return problems


def _ofContainer(container: Container) -> list[Problem]:
    problems: list[Problem] = []
    path = join("containers", str(container.name))
    _values(container, CONTAINER, path, problems)
    if container.adoption is not None and _is(container.adoption, Adoption, path, problems):
        _values(container.adoption, ADOPTION, path, problems)
    for channel in _all(container.channels, Channel, f"{path}.channels", problems):
        place = join(f"{path}.channels", channel.name)
        before = len(problems)
        _values(channel, CHANNEL, place, problems)
        if _is(channel.keepalive, Keepalive, place, problems):
            _values(channel.keepalive, KEEPALIVE, place, problems)
        if len(problems) == before:
            checkEnds(channel, partial(_note, problems, place))
    return problems


def _note(problems: list[Problem], path: str, key: str, wrong: str, remedy: str) -> None:
    problems.append(Problem(join(path, key), wrong, remedy))


def _is(made: object, cls: type[object], path: str, problems: list[Problem]) -> bool:
    if isinstance(made, cls):
        return True
    remedy = f"put a {cls.__module__}.{cls.__name__} there"
    problems.append(Problem(path, f"holds {_sort(made)}", remedy))
    return False


def _sort(made: object) -> str:
    return "nothing" if made is None else f"something of the type {type(made).__name__}"


def _all(made: Any, cls: type[Any], path: str, problems: list[Problem]) -> list[Any]:
    """Those that are what they should be; each has a name of its own."""
    if not isinstance(made, (tuple, list)):
        problems.append(Problem(path, f"is {_sort(made)}", "give it a tuple"))
        return []
    found = [each for each in made if _is(each, cls, path, problems)]
    names: set[str] = set()
    for each in found:
        if not isinstance(each.name, str) or not isName(each.name):
            wrong = f"{brief(each.name)} is no usable name"
            problems.append(Problem(path, wrong, "use letters, digits, dot, - and _"))
        elif each.name in names:
            problems.append(
                Problem(join(path, each.name), "is there twice", "give one another name")
            )
        names.add(str(each.name))
    return found


def _values(made: object, keys: Mapping[str, Key], path: str, problems: list[Problem]) -> None:
    for attribute, key in keys.items():
        value = getattr(made, attribute)
        if not key.required and value is key.default:
            continue
        try:
            key.kind.checkMade(value)
        except ValueError as error:
            remedy = error.remedy(key.name) if isinstance(error, Wrong) else ""
            wrong = error.wrong if isinstance(error, Wrong) else str(error)
            name = path.rpartition(".")[2]
            _note(problems, path, key.name, wrong, remedy or key.kind.remedy(key.name, name))
