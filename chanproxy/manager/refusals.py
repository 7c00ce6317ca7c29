"""
Refusals: what went wrong below, as the error reply of a call.
"""

from __future__ import annotations

import errno

from twisted.python.failure import Failure

from chanproxy.container import Container
from chanproxy.container.outcomes import AlreadySuspended, Paused, SuspendFailure, WakeLocksExist
from chanproxy.manager import errors
from chanproxy.manager.describe import portion
from chanproxy.manager.errors import (
    InvalidParameter,
    LimitExceeded,
    PermissionDenied,
    VarlinkError,
)
from chanproxy.wake.source import TooManyWakeSources, WakeSourceError, WakeSourceExists


def noAccess(who: str) -> PermissionDenied:
    """For those who may do nothing at all."""
    return PermissionDenied(
        f"{who} has no access; the configuration gives it in a table [access.NAME]"
    )


def notNow(error: OSError) -> LimitExceeded:
    """Out of descriptors or memory; the client may try again."""
    text = f"not now: {error.strerror}; raise the limit of open files (ulimit -n)"
    return LimitExceeded("RLIMIT_NOFILE", text)


def sourceError(field: str, name: str, error: WakeSourceError) -> Exception:
    if isinstance(error, WakeSourceExists):
        return errors.WakeSourceExists(name)
    if isinstance(error, TooManyWakeSources):
        return LimitExceeded("limits.wake-sources", str(error))
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
        return LimitExceeded("fs.epoll.max_user_watches", str(error))
    if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        # It is not the descriptor that is wrong.
        return cause
    return InvalidParameter(field, str(error))


def suspendError(container: Container, failure: Failure) -> VarlinkError:
    error = failure.value
    if isinstance(error, WakeLocksExist):
        names, _ = portion(error.names, 0)
        return errors.WakeLocksExist(names)
    if isinstance(error, AlreadySuspended):
        return errors.AlreadySuspended(container.suspension.state)
    if isinstance(error, Paused):
        return errors.ContainerPaused(container.name, error.by)
    if isinstance(error, SuspendFailure):
        return errors.SuspendFailure(str(error))
    failure.raiseException()
    raise AssertionError
