"""
Which status an error of the manager has, and the errors that only HTTP has.

The body of each is what the control socket would send.
"""

from __future__ import annotations

from collections.abc import Mapping

from chanproxy.manager.errors import MANAGER, VarlinkError

STATUSES = {
    "CallMalformed": 400,
    "PermissionDenied": 403,
    "ContainerNotFound": 404,
    "AlreadySuspended": 409,
    "ContainerPaused": 409,
    "SuspendFailure": 409,
    "WakeLockNotHeld": 409,
    "WakeLocksExist": 409,
    "CallTooLarge": 413,
    "InvalidParameter": 422,
    "LimitExceeded": 429,
    "InternalError": 500,
}
"""By the last part of an error's name."""


class HttpError(VarlinkError):
    """
    One that only HTTP has.

    @ivar headers: that go with it.
    """

    def __init__(
        self, status: int, name: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"{MANAGER}.{name}", message)
        self.status = status
        self.headers = headers or {}


def statusOf(error: VarlinkError) -> int:
    """The status of any of them."""
    if isinstance(error, HttpError):
        return error.status
    return STATUSES.get(error.error.rpartition(".")[2], 400)
