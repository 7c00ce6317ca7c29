"""
C{[limits]}: how much of everything there may be.

Pure.
"""

from __future__ import annotations

from attrs import frozen

from chanproxy.channels.buffered import BUFFER
from chanproxy.channels.buffers import MESSAGE_BYTES
from chanproxy.config.keys import key, keysOf
from chanproxy.config.kinds import (
    LONGEST,
    Number,
    Whole,
)
from chanproxy.config.tables import Table
from chanproxy.freezers.files import CGROUPS, DEPTH, PROCESSES
from chanproxy.kernel.calls import SCM_MAX_FD
from chanproxy.kernel.fewlines import LINES

LARGEST_MESSAGE = 64 * 1024 * 1024
"""Bytes; what a privileged process can raise a socket's buffer to is of this order."""

MOST_SOURCES = 1_000_000
"""More wake sources or wake locks than this are a mistake."""

MOST_DESCRIPTORS = 2**30
"""C{fs.nr_open} can be raised to about this."""

MOST_PROCESSES = 2**22
"""C{PID_MAX_LIMIT}, C{linux/threads.h}."""


@frozen
class Limits:
    """
    C{[limits]}.

    @ivar messageBytes: the largest packet carried, in bytes.
    @ivar messageDescriptors: the most descriptors on one packet.
    @ivar connectTimeout: seconds until a connection fails that is not made; on Unix sockets, to go
        on trying while the backlog is full.
    @ivar controlBytes: the largest call, in bytes.
    @ivar controlConnections: the most connections to the control socket.
    @ivar wakeSources: the most wake sources of one container.
    @ivar wakeLocks: the most names of wake locks of one container.
    @ivar wakeWatchers: the most watchers of one container.
    @ivar traceBytes: the largest trace, in bytes.
    @ivar containers: up to how many containers others can be added while running.
    @ivar containerDescriptors: that one container may take of the service's; 0: a quarter.
    @ivar userDescriptors: that the calls of one user may have the service keep; 0: a sixteenth.
    @ivar logLines: in a minute, about what the peers of one socket or container do.
    @ivar cgroups: of one container, up to which they are looked through.
    @ivar cgroupDepth: how deep inside each other they are looked through.
    @ivar processes: likewise.
    @ivar endpointBuffer: bytes that wait in one direction of an endpoint of Twisted's.
    @ivar httpBytes: the largest body of a request, in bytes.
    @ivar httpConnections: the most connections by HTTP.
    @ivar httpStreams: the most that are told of events at a time.
    @ivar httpTimeout: seconds that a request may take to arrive.
    """

    messageBytes: int = key(
        MESSAGE_BYTES, Whole(1, LARGEST_MESSAGE, "bytes"), "The largest packet carried."
    )
    messageDescriptors: int = key(
        SCM_MAX_FD, Whole(0, SCM_MAX_FD), "The most descriptors on one packet."
    )
    connectTimeout: float = key(
        10.0, Number(0, LONGEST, "seconds"), "How long a connection may take to be made."
    )
    controlBytes: int = key(65536, Whole(1024, LARGEST_MESSAGE, "bytes"), "The largest call.")
    controlConnections: int = key(
        256, Whole(1, 65536), "The most connections to the control socket."
    )
    wakeSources: int = key(32768, Whole(1, MOST_SOURCES), "The most wake sources of one container.")
    wakeLocks: int = key(
        1024, Whole(1, MOST_SOURCES), "The most names of wake locks of one container."
    )
    wakeWatchers: int = key(256, Whole(0, MOST_SOURCES), "The most watchers of one container.")
    containers: int = key(1024, Whole(0, MOST_SOURCES), "Up to how many containers can be added.")
    traceBytes: int = key(64 * 1024 * 1024, Whole(4096, 2**40, "bytes"), "The largest trace.")
    endpointBuffer: int = key(
        BUFFER,
        Whole(1024, LARGEST_MESSAGE, "bytes"),
        "What waits in one direction of an endpoint of Twisted's.",
    )
    containerDescriptors: int = key(
        0, Whole(0, MOST_DESCRIPTORS), "Descriptors of one container; 0: a quarter."
    )
    userDescriptors: int = key(
        0, Whole(0, MOST_DESCRIPTORS), "Descriptors that calls of one user keep; 0: a sixteenth."
    )
    logLines: int = key(LINES, Whole(0, MOST_SOURCES), "Lines in a minute about what peers do.")
    cgroups: int = key(
        CGROUPS, Whole(1, MOST_SOURCES), "Cgroups of one container that are looked through."
    )
    cgroupDepth: int = key(DEPTH, Whole(1, MOST_SOURCES), "How deep inside each other they are.")
    processes: int = key(
        PROCESSES, Whole(1, MOST_PROCESSES), "Processes of one container that are looked at."
    )
    httpBytes: int = key(
        65536, Whole(64, LARGEST_MESSAGE, "bytes"), "The largest body of a request over HTTP."
    )
    httpConnections: int = key(256, Whole(1, 65536), "The most connections by HTTP.")
    httpStreams: int = key(64, Whole(0, 65536), "Streams of events; an eighth for each user.")
    httpTimeout: float = key(
        30.0, Number(0.1, LONGEST, "seconds"), "How long a request may take to arrive."
    )


KEYS = keysOf(Limits)


def readLimits(table: Table) -> Limits:
    """What the configuration says; what is wrong with it is noted in the table."""
    limits = Limits(**table.readAll(KEYS))
    table.end()
    return limits
