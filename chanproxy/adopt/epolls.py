"""
What is inside an epoll of another process, from C{/proc/PID/fdinfo}.

An epoll can be watched as a whole, at no cost per descriptor.  Only when something in it is to be
ignored, or it is nested too deeply, is each of its descriptors watched by itself.
"""

from __future__ import annotations

import os
import re
import select

from attrs import frozen

from chanproxy.adopt.threads import Gone

_MEMBER = re.compile(rb"^tfd:\s*(\d+) events:\s*([0-9a-f]+) .*?ino:([0-9a-f]+)", re.MULTILINE)

_EVENTS = (
    select.EPOLLIN
    | select.EPOLLPRI
    | select.EPOLLOUT
    | select.EPOLLRDNORM
    | select.EPOLLRDBAND
    | select.EPOLLWRNORM
    | select.EPOLLWRBAND
    | select.EPOLLMSG
    | select.EPOLLRDHUP
)
"""What can be waited for; errors and hang-ups always are, and the rest says how it is told."""


@frozen
class Member:
    """
    A descriptor in an epoll.

    @ivar events: that it is watched for, without C{EPOLLET} and the like.
    """

    fd: int
    events: int


def members(pid: int, fd: int) -> list[Member]:
    """
    The descriptors in an epoll that can become ready.

    Watched one by one they are level-triggered: an edge that the program has been told of already
    is told once more.

    @raise Gone: there is no such process.
    @raise OSError: it cannot be read, or a number in it stands for another file by now.
    """
    try:
        with open(f"/proc/{pid}/fdinfo/{fd}", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        raise Gone from None
    found = []
    for number, events, inode in _MEMBER.findall(text):
        wanted = int(events, 16) & _EVENTS
        # A one-shot that has fired waits for nothing until it is armed again.
        if not wanted:
            continue
        member = int(number)
        if os.stat(f"/proc/{pid}/fd/{member}").st_ino != int(inode, 16):
            raise OSError(f"descriptor {member} in its epoll has another number by now")
        found.append(Member(member, wanted))
    return found
