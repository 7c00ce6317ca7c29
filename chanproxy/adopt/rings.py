"""
io_urings whose completions only a thread of the frozen program could post.

Knows rings; knows nothing of what else a process waits for.
"""

from __future__ import annotations

import os
import re

from chanproxy.kernel import calls

_POLLING = re.compile(rb"^SqThread:\s*(-?\d+)", re.MULTILINE)


def whyNotCompleted(duplicate: int, path: str = "/proc/self/fdinfo") -> str:
    """
    Say why an io_uring would not go on without its frozen program.

    @param duplicate: a descriptor of ours of the ring.
    @return: empty when the kernel completes its requests by itself.
    @raise OSError: it cannot be asked.
    """
    with open(os.path.join(path, str(duplicate)), "rb", buffering=0) as file:
        found = _POLLING.search(file.readall())
    if found is None:
        # The kernel says nothing while somebody holds the ring's lock.
        return "it is being used"
    if int(found[1]) >= 0:
        return "a thread of its own takes its requests (SQPOLL), and is frozen with it"
    if not calls.mayComplete(duplicate):
        return "only its own thread may complete its requests (DEFER_TASKRUN), and is frozen"
    return ""
