"""
What Compose writes on the containers that it makes: to which project one belongs, and which others
it depends on.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"

_DEPENDS = "com.docker.compose.depends_on"
"""As C{db:service_healthy:false,cache:...}."""


def needs(labels: Mapping[str, str]) -> list[str]:
    """The services that one depends on, of the same project."""
    services = (each.partition(":")[0] for each in labels.get(_DEPENDS, "").split(","))
    return [each for each in services if each]


def inOrder(found: Iterable[T], labelsOf: Callable[[T], Mapping[str, str]]) -> list[T]:
    """Those first that others depend on; else as they are, also where they go round in a ring."""
    ordered: list[T] = []
    waiting = list(found)
    while waiting:
        left = {_service(labelsOf(each)) for each in waiting}

        def free(each: T, left: set[tuple[str, str]] = left) -> bool:
            labels = labelsOf(each)
            project = labels.get(PROJECT, "")
            wanted = {(project, service) for service in needs(labels)} - {_service(labels)}
            return not wanted & left

        ready = [each for each in waiting if free(each)] or waiting
        ordered += ready
        waiting = [each for each in waiting if each not in ready]
    return ordered


def _service(labels: Mapping[str, str]) -> tuple[str, str]:
    return labels.get(PROJECT, ""), labels.get(SERVICE, "")
