"""
The service: containers, channels and the manager of one configuration, which start and stop
together.

Must not know what is typed in a shell.
"""

from chanproxy.service.preflight import preflight
from chanproxy.service.service import ChanproxyService

__all__ = ["ChanproxyService", "preflight"]
