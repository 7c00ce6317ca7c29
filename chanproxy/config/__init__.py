"""
Configuration: what can be written in a file, as plain values, and what is wrong with it.

Must not know anything that runs.
"""

from chanproxy.config.access import AccessEntry
from chanproxy.config.changes import Changed, Reloaded
from chanproxy.config.channels import Channel
from chanproxy.config.containers import Container
from chanproxy.config.discovery import Discovery
from chanproxy.config.history import History
from chanproxy.config.limits import Limits
from chanproxy.config.problems import ConfigurationError, Problem, ReloadError, StartError
from chanproxy.config.reading import (
    Configuration,
    fromOptions,
    fromTree,
    load,
    loadFile,
)
from chanproxy.config.scheduling import Scheduling

__all__ = [
    "AccessEntry",
    "Changed",
    "Channel",
    "Configuration",
    "ConfigurationError",
    "Container",
    "Discovery",
    "History",
    "Limits",
    "Problem",
    "ReloadError",
    "Reloaded",
    "Scheduling",
    "StartError",
    "fromOptions",
    "fromTree",
    "load",
    "loadFile",
]
