"""
Preflight: what would keep a service from starting, found without changing anything.
"""

from __future__ import annotations

import os
import time

from chanproxy import config
from chanproxy.adopt.rights import whyNotAdopt
from chanproxy.config import Problem
from chanproxy.config.together import whyNotApart
from chanproxy.endpoints.paths import SeqpacketAddressSpec
from chanproxy.freezers import makeFreezer, stops
from chanproxy.interfaces import ChanproxyReactor, FreezerError, IExclusiveFreezer, IFreezer
from chanproxy.kernel.rundirectory import openDirectory, runtimeDirectory
from chanproxy.manager.access import Access, AccessError
from chanproxy.service.listener import whyNotStartable
from chanproxy.words import plainPath

PREDECESSOR = 0.5
"""
Seconds: what a service had that was killed is free when the last of its processes has ended, which
may be some moments after the service itself, or many on a busy machine.
"""


def preflight(configuration: config.Configuration, reactor: ChanproxyReactor) -> list[Problem]:
    """
    Look for what would keep the service from starting, without changing anything.

    Waits for up to C{PREDECESSOR} seconds for what may pass.

    @return: all problems found; with their lines, if the configuration is from a file.
    """
    end = time.monotonic() + PREDECESSOR
    while True:
        problems = _problems(configuration, reactor)
        if time.monotonic() > end or not any(each.passing for each in problems):
            return list(configuration.located(problems))
        time.sleep(0.02)


def _problems(configuration: config.Configuration, reactor: ChanproxyReactor) -> list[Problem]:
    problems = []
    if any(stops(container.freezer) for container in configuration.containers):
        try:
            os.close(openDirectory(runtimeDirectory(), make=False))
        except FileNotFoundError:
            pass
        except FreezerError as error:
            problems.append(Problem("records", str(error)))
    places: dict[str, str] = {}
    for container in configuration.containers:
        path = f"containers.{container.name}"
        try:
            freezer = makeFreezer(container.freezer, reactor)
            freezer.check()
            place = placeOf(freezer)
        except (FreezerError, ValueError) as error:
            problems.append(Problem(f"{path}.freezer", str(error)))
        else:
            clash = whyNotApart(place, places) if place else None
            taken = None
            if clash is None and container.suspend != "dry-run":
                taken = _whyInHands(freezer)
            if clash is not None:
                problems.append(Problem(f"{path}.freezer", clash))
            elif taken is not None:
                problems.append(Problem(f"{path}.freezer", taken, passing=True))
            elif place:
                places[f"{path}.freezer"] = place
        wrong = whyNotAdopt() if container.adoption is not None else None
        if wrong is not None:
            problems.append(Problem(f"{path}.wake-on", wrong))
        if container.control is not None and (wrong := container.control.whyNotBindable()):
            problems.append(Problem(f"{path}.control", wrong, passing=True))
        for channel in container.channels:
            for key, wrong in whyNotStartable(reactor, channel):
                where = f"{path}.channels.{channel.name}.{key}"
                problems.append(Problem(where, wrong, passing=key == "listen"))
    try:
        Access(configuration.access)
    except AccessError as error:
        problems += error.problems
    control = configuration.control
    if control is not None and not madeByUs(control):
        taken = control.whyNotBindable()
        if taken is not None:
            problems.append(Problem("control", taken, passing=True))
    http = configuration.http
    if http is not None and (taken := http.whyNotBindable()):
        problems.append(Problem("http", taken, passing=True))
    return problems


def placeOf(freezer: IFreezer) -> str:
    """
    What no two containers have in common; empty, when nothing is stopped.

    @raise FreezerError: it cannot be known.
    """
    exclusive: IExclusiveFreezer | None = IExclusiveFreezer(freezer, None)
    if exclusive is not None:
        return exclusive.place()
    return plainPath(freezer.spec) if stops(freezer.spec) else ""


def _whyInHands(freezer: IFreezer) -> str | None:
    """Whether another service has it, in words."""
    exclusive: IExclusiveFreezer | None = IExclusiveFreezer(freezer, None)
    if exclusive is not None:
        try:
            exclusive.claim()
        except FreezerError as error:
            return str(error)
        exclusive.release()
    return None


def madeByUs(control: SeqpacketAddressSpec) -> bool:
    """Whether the control socket's directory is the runtime directory, still to be made."""
    directory = os.path.dirname(control.path)
    return directory == runtimeDirectory() and not os.path.exists(directory)
