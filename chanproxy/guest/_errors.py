"""What can go wrong between a guest and its service, as exceptions with a sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class GuestError(Exception):
    """Whatever the guest's side raises."""


class ServiceGone(GuestError):
    """
    The service is not there, has gone, was restarted, or does not answer.

    What was made for the time of the connection is gone, too, and the container is awake.  The
    next call connects anew.  Whether the call that raised was carried out is not known.
    """


class CallRefused(GuestError):
    """
    The service answered with an error, and goes on; nothing has changed.

    @ivar error: its name, without the interface's: C{ContainerNotFound}.
    @ivar parameters: its fields; C{message} is the exception's text.
    """

    def __init__(self, error: str, parameters: Mapping[str, Any]) -> None:
        super().__init__(str(parameters.get("message", error)))
        self.error = error
        self.parameters = dict(parameters)


class WakeLocksExist(CallRefused):
    """Something keeps the container awake; it was not suspended."""

    @property
    def names(self) -> list[str]:
        """What keeps it awake."""
        return list(self.parameters.get("names", []))


class SuspendFailure(CallRefused):
    """The container could not be suspended; it is awake."""


class AlreadySuspended(CallRefused):
    """Somebody else suspends the container at this moment."""


_KNOWN = {kind.__name__: kind for kind in (WakeLocksExist, SuspendFailure, AlreadySuspended)}


def refusal(error: str, parameters: Mapping[str, Any]) -> CallRefused:
    """The exception of an error reply."""
    name = error.rpartition(".")[2]
    return _KNOWN.get(name, CallRefused)(name, parameters)
