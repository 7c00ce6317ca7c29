"""
What is legal in a configuration, and unwise all the same: each with the reason, and what to write
instead.

Looks at values only; what the machine has to say to them is L{chanproxy.service.unwise}'s.  That
something can be used at all is not asked here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from chanproxy.adopt.deadlines import IGNORE
from chanproxy.adopt.settings import BREATH, Adoption
from chanproxy.channels.framed import FRAME_BYTES
from chanproxy.config.access import AccessEntry
from chanproxy.config.channels import Channel
from chanproxy.config.containers import Container, unwiseBounds
from chanproxy.config.problems import Problem
from chanproxy.config.reading import Configuration
from chanproxy.config.scheduling import Scheduling
from chanproxy.config.tables import join
from chanproxy.endpoints.paths import PathSpec
from chanproxy.freezers import stops
from chanproxy.words import named, plainPath

SHORT_LINGER = 0.05
"""Seconds; between the messages of one exchange, more than that may pass."""

SHORT_ANSWER = 1.0
"""Seconds; a handler that takes longer is nothing unusual."""

_SLICES = ("-.slice", "init.scope", "machine.slice", "system.slice", "user.slice")
"""What systemd makes; C{systemd.special(7)}."""

_KINDS = ("tcp", "unix", "socket", "epoll", "pipe")
"""By these servers hear of their clients."""

_TCP = ("tcp", "ssl", "tls")

_IRQS = 50
"""The priority of interrupts that have threads, C{kernel/irq/manage.c}."""

_UNKNOWN = (65534, "nobody")
"""As whom those are seen whose users are unknown here: C{user_namespaces(7)}."""


def unwise(configuration: Configuration) -> list[Problem]:
    """All that is; no line is known yet."""
    found = [*_top(configuration), *_scheduling(configuration.scheduling)]
    isCalled = any(configuration.called.values())
    for entry in configuration.access:
        found += _access(join("access", entry.name), entry)
    for container in configuration.containers:
        path = join("containers", container.name)
        found += _container(path, container, isCalled)
        if container.adoption is not None:
            found += _adoption(path, container, container.adoption)
        for channel in container.channels:
            asked = isCalled or container.control is not None
            found += _channel(join(f"{path}.channels", channel.name), channel, asked)
    return [*found, *_mounted(configuration)]


def _mounted(read: Configuration) -> Iterator[Problem]:
    """Whether a container has more in the directory of its own socket than that."""
    sockets: dict[str, PathSpec | None] = dict(read.called)
    for container in read.containers:
        sockets[join("containers", container.name) + ".control"] = container.control
    files = {key: plainPath(each.file) for key, each in sockets.items() if each and each.file}
    for key, file in files.items():
        directory = os.path.dirname(file)
        inside = [each for each in files if each != key and files[each].startswith(f"{directory}/")]
        if key not in read.called and inside:
            yield Problem(
                key,
                f"its directory, {named(directory)}, is what the container is given, and "
                f"{inside[0]} is in it as well: who is in there can call that, too",
                "give it a directory of its own",
            )


def _top(read: Configuration) -> Iterator[Problem]:
    if read.watchdog == 0:
        yield Problem(
            "watchdog",
            "0: nobody thaws what sleeps when the service hangs or is killed",
            "leave it out, or write some seconds",
        )
    elif read.watchdog < 0.5:
        yield Problem(
            "watchdog",
            f"{read.watchdog:g} s is less than a busy machine may take to let the service turn: "
            "what sleeps is thawed then",
            "write 1 or more",
        )
    elif read.watchdog > 60:
        yield Problem(
            "watchdog",
            f"for {read.watchdog:g} s stays frozen, deaf to everybody, what a service that hangs "
            "has frozen",
            "write 60 or less",
        )
    if not read.confine:
        yield Problem(
            "confine",
            "false: the service and the processes beside it keep rights that they have no use for",
            "leave it out",
        )
    for key, address in read.called.items():
        yield from _abstract(key, address)
        if address.othersMayConnect() and not read.access:
            yield Problem(
                key,
                f"with mode {address.mode:03o} others may connect, and no access table gives "
                "them anything: they can only fill places and log lines",
                "write mode=600, or a table [access.NAME]",
            )
    yield from _limits(read)


def _limits(read: Configuration) -> Iterator[Problem]:
    limits = read.limits
    channels = [channel for container in read.containers for channel in container.channels]
    if limits.messageBytes > FRAME_BYTES and any(each.framing != "none" for each in channels):
        yield Problem(
            "limits.message-bytes",
            f"{limits.messageBytes} is not reached by channels with framing: a frame has "
            f"{FRAME_BYTES} bytes at most, and a longer one closes its connection",
            f"write {FRAME_BYTES} or less, so that it says what is carried",
        )
    if limits.logLines > 6000:
        yield Problem(
            "limits.log-lines",
            f"{limits.logLines} in a minute: whoever may connect can fill the disk",
            "write some hundreds at most",
        )
    if limits.connectTimeout < 0.1:
        yield Problem(
            "limits.connect-timeout",
            f"{limits.connectTimeout:g} s is less than a container may take to accept that has "
            "just been thawed: its peers are turned away",
            "write 1 or more",
        )


def _scheduling(scheduling: Scheduling) -> Iterator[Problem]:
    if scheduling.policy == "idle" or (scheduling.nice or 0) > 0:
        key = "policy" if scheduling.policy == "idle" else "nice"
        yield Problem(
            f"scheduling.{key}",
            "whatever else has work comes before the service, and each wake is late by that",
            "leave it out",
        )
    if scheduling.policy in ("fifo", "rr") and scheduling.priority >= _IRQS:
        yield Problem(
            "scheduling.priority",
            f"{scheduling.priority}: the service, and who floods it, come before the kernel's own "
            f"interrupt threads, which have {_IRQS}",
            f"write less than {_IRQS}",
        )


def _access(path: str, entry: AccessEntry) -> Iterator[Problem]:
    if entry.trusted:
        yield Problem(
            f"{path}.trusted",
            "true: each of them can have the whole service wait, for good, by a counter that it "
            "fills or a file whose server does not answer",
            "leave it out, unless you would let them stop the service",
        )
    for user in entry.users:
        if user in _UNKNOWN:
            yield Problem(
                f"{path}.users",
                f"{user}: everybody whose user is unknown here counts as that one",
                "leave it out",
            )


def _container(path: str, container: Container, asked: bool) -> Iterator[Problem]:
    """@param asked: the service has a control socket."""
    freezer = container.freezer
    if not stops(freezer):
        yield Problem(
            f"{path}.freezer",
            "none stops nothing: this container never sleeps, its channels are carried only",
            "write cgroup:PATH, unless this is a test",
        )
    last = freezer.rstrip("/").rpartition("/")[2].removeprefix("cgroup:")
    if freezer.startswith("cgroup:") and last in _SLICES:
        yield Problem(
            f"{path}.freezer",
            f"{last} is what systemd runs the machine in: all of it would be frozen together, "
            "logins and this one's supervisor too",
            "name the cgroup of one service or container inside of it",
        )
    yield from _wakes(path, container, asked)
    if container.adoption is None and container.suspend == "auto":
        if container.linger < SHORT_LINGER:
            yield Problem(
                f"{path}.linger",
                f"{container.linger:g} s is over between two messages of one exchange, and what "
                "goes on without a message is cut off: it is frozen and thawed for each of them",
                f"write {SHORT_LINGER:g} or more",
            )
        if 0 < container.maxAsleep <= container.linger:
            yield Problem(
                f"{path}.max-asleep",
                f"after {container.maxAsleep:g} s asleep it is awake for {container.linger:g} s, "
                "though nothing has come: it is awake for most of the time",
                "write some minutes, or never",
            )
    yield from unwiseBounds(path, container)
    if container.control is not None:
        yield from _abstract(f"{path}.control", container.control)


def _wakes(path: str, container: Container, asked: bool) -> Iterator[Problem]:
    """Whether anything can have it sleep, and wake."""
    asked = asked or container.control is not None
    if asked or container.suspend not in ("auto", "manual"):
        return
    if container.suspend == "manual":
        yield Problem(
            f"{path}.suspend",
            "manual: it sleeps only when somebody asks, and there is no control socket to ask on",
            'write control = "/run/chanproxy/control.sock", or suspend = "auto"',
        )
    elif not (container.adoption or container.channels or container.maxAsleep) and stops(
        container.freezer
    ):
        yield Problem(
            path,
            "is frozen, and nothing but a signal wakes it again: it has no channel, does not wake "
            "by its own sockets, and there is no control socket",
            'write wake-on = "sockets", or a channel',
        )


def _adoption(path: str, container: Container, adoption: Adoption) -> Iterator[Problem]:
    if container.maxAsleep == 0 and container.suspend != "dry-run":
        yield Problem(
            f"{path}.max-asleep",
            "never: what hides behind a steady tick, as a lease or a watchdog may, waits until "
            "something else wakes it",
            f'leave it out ("{BREATH:g}s"), or write how late that may be',
        )
    if adoption.timeouts == IGNORE:
        yield Problem(
            f"{path}.timeouts",
            "ignore: no time that its threads wait for wakes it, so jobs, retries and answers that "
            "take their time come late",
            'leave it out ("10s"), or name what is not to wake it by ignore',
        )
    if adoption.unanswered == 0:
        yield Problem(
            f"{path}.unanswered",
            "never: it may be frozen while a client waits for its answer",
            'leave it out ("30s")',
        )
    elif adoption.unanswered < SHORT_ANSWER:
        yield _impatient(f"{path}.unanswered", adoption.unanswered)
    if adoption.unseen == "blind":
        yield Problem(
            f"{path}.unseen",
            "blind: what a process waits for that may not be looked into does not wake it, and "
            "what such a one does is cut off",
            "leave it out, and give the service the right to look (chanproxy doctor)",
        )
    for word in adoption.ignore:
        if word.removesuffix(":*") in _KINDS:
            yield Problem(
                f"{path}.ignore",
                f"{word}: nobody can wake it by any of them",
                "name the ones that are not to wake it, as in udp:*:5353",
            )
    yield from _busy(path, adoption)


def _busy(path: str, adoption: Adoption) -> Iterator[Problem]:
    if adoption.busyCpu >= 1:
        yield Problem(
            f"{path}.busy-cpu",
            f"{adoption.busyCpu:g}: a program that keeps a processor busy counts as idle",
            "write less than 1",
        )
    for key, value in (("busy-cpu", adoption.busyCpu), ("busy-switches", adoption.busySwitches)):
        if value == 0:
            yield Problem(
                f"{path}.{key}",
                "0: whatever it does at all counts as work, so it may never sleep",
                'leave it out, or write suspend = "off"',
            )
    if adoption.shortSleep == 0:
        yield Problem(
            f"{path}.short-sleep",
            "0: when something wakes it again and again, it is frozen again each time, which "
            "takes more of the processor than to leave it awake",
            "leave it out",
        )


def _channel(path: str, channel: Channel, asked: bool) -> Iterator[Problem]:
    """@param asked: there is a control socket, on which its counter can be had."""
    open_ = channel.listen.openTo()
    if open_ is not None and channel.identity != "peer":
        who, remedy = open_
        if channel.listen.file:
            remedy += ', or identity = "peer"'
        yield Problem(
            f"{path}.listen",
            f"lets in {who}, and chanproxy asks nobody who it is: to the container each of them "
            "is the service's user",
            remedy,
        )
    if channel.handled == "explicit" and not asked:
        yield Problem(
            f"{path}.handled",
            "explicit: nobody can say that a message is handled, for there is no control socket: "
            "from the first one on the container stays awake",
            "write control = ..., or another policy",
        )
    if channel.handled == "answered":
        yield from _answered(path, channel)
    if channel.handled == "idle" and channel.silence < SHORT_ANSWER:
        yield Problem(
            f"{path}.silence",
            f"a message counts as handled after {channel.silence:g} s of silence, also while the "
            "container works on it",
            "write more than its longest silent work takes",
        )
    ends = (channel.listen.scheme.lower(), channel.connect.scheme.lower())
    if channel.keepalive.idle == 0 and any(scheme in _TCP for scheme in ends):
        yield Problem(
            f"{path}.keepalive-idle",
            "0: a peer that vanishes without a word is never noticed, and its connection stays",
            "leave it out, or write minutes",
        )


def _answered(path: str, channel: Channel) -> Iterable[Problem]:
    """Whether an answer can be seen."""
    if channel.unanswered == 0:
        yield Problem(
            f"{path}.unanswered",
            "never: no answer is waited for, so that it is frozen while it works on one",
            'leave it out ("30s"), or write handled = "consumed" if none is to be waited for',
        )
    elif channel.unanswered < SHORT_ANSWER:
        yield _impatient(f"{path}.unanswered", channel.unanswered)
    if channel.initiator == "container" and channel.listen.traits.showsUnread is False:
        yield Problem(
            f"{path}.handled",
            "answered: to one that dials, what comes is the answer, and on "
            f"{channel.listen.scheme} nothing shows whether it was read: a message is taken as "
            "handled after the linger time",
            'write handled = "idle" or "explicit", or give a Unix socket to the container',
        )


def _impatient(path: str, seconds: float) -> Problem:
    return Problem(
        path,
        f"a handler that takes longer than {seconds:g} s is frozen in the middle",
        "write more than the slowest answer takes",
    )


def _abstract(path: str, control: PathSpec) -> Iterator[Problem]:
    if control.abstract:
        yield Problem(
            path,
            f"{control.shown} is reachable from everywhere in the network namespace, also from "
            "containers that share it, where root counts as root",
            "write a path",
        )
