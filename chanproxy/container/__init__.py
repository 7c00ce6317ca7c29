"""
Containers at run time: how one falls asleep and wakes, and the channels that it has.

Must not know configuration files, the manager and the service.
"""

from chanproxy.container.bounds import Bounds
from chanproxy.container.container import Container, Surroundings
from chanproxy.container.outcomes import Resumed, SuspendFailure
from chanproxy.container.sockets import proxySockets

__all__ = ["Bounds", "Container", "Resumed", "Surroundings", "SuspendFailure", "proxySockets"]
