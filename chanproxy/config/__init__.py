"""
Configuration: what can be written in a file, as plain values, and what is wrong with it.

Must not know anything that runs.
"""

from chanproxy.config.containers import LONGEST_LINGER, Channel, Container
from chanproxy.config.problems import ConfigurationError, Problem, StartError
from chanproxy.config.reading import (
    AccessEntry,
    Configuration,
    Limits,
    fromOptions,
    fromTree,
    load,
    loadFile,
)
from chanproxy.config.scheduling import Scheduling

__all__ = [
    "LONGEST_LINGER",
    "AccessEntry",
    "Channel",
    "Configuration",
    "ConfigurationError",
    "Container",
    "Limits",
    "Problem",
    "Scheduling",
    "StartError",
    "fromOptions",
    "fromTree",
    "load",
    "loadFile",
]
