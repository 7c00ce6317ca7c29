"""
How long the kernel makes whoever freezes wait: one of its locks is for all cgroups of the machine,
and others make and remove theirs.
"""

from __future__ import annotations

import os
import time

from support.cgroups import TemporaryCgroup

SOON = 0.005
"""Seconds in which a cgroup is thawed when nobody has the lock; it takes microseconds."""


class Stalls:
    """What is seen of that, at each look."""

    def __init__(self) -> None:
        self._cgroup = TemporaryCgroup()
        self._file = os.open(os.path.join(self._cgroup.path, "cgroup.freeze"), os.O_WRONLY)
        self._seconds = 0.0

    def look(self) -> float:
        """@return: seconds, of all looks so far."""
        began = time.monotonic()
        # Taken also for what changes nothing: cgroup_freeze_write of kernel/cgroup/cgroup.c.
        os.write(self._file, b"0")
        took = time.monotonic() - began
        if took > SOON:
            self._seconds += took
        return self._seconds

    def close(self) -> None:
        """Remove what was made for it."""
        os.close(self._file)
        self._cgroup.close()
