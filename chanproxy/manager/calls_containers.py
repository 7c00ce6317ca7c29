"""
Calls about what there is.
"""

from __future__ import annotations

from chanproxy.manager.caller import Reply, Request
from chanproxy.manager.describe import activity, description, portion, summary
from chanproxy.manager.errors import (
    MANAGER,
    SERVICE,
    InterfaceNotFound,
)
from chanproxy.manager.varlink import interfaceDescription
from chanproxy.wake.statistics import bootNanoseconds


def listContainers(request: Request) -> Reply:
    """Those that the caller has access to."""
    first = request.parameters.whole("first_container", 0, 0, 2**31)
    details = request.parameters.flag("details", False)
    request.end()
    allowed = (
        {**summary(container), "details": activity(container)} if details else summary(container)
        for name, container in request.containers().items()
        if request.caller.rights.allows(name)
    )
    found, following = portion(allowed, first)
    more = {} if following is None else {"next_container": following}
    if details:
        more["now"] = bootNanoseconds()
    return Reply({"containers": found, **more})


def describe(request: Request) -> Reply:
    """What a container does, and why."""
    container = request.container()
    first = request.parameters.whole("first_source", 0, 0, 2**31)
    request.end()
    # Who is inside learns nothing of who is outside.
    return Reply(description(container, first, takers=request.caller.home is None))


def getInfo(request: Request) -> Reply:
    """What answers here."""
    from chanproxy import __version__

    request.end()
    return Reply(
        {
            "vendor": "chanproxy",
            "product": "chanproxy",
            "version": __version__,
            "url": "",
            "interfaces": [SERVICE, MANAGER],
        }
    )


def getInterfaceDescription(request: Request) -> Reply:
    """The interface file."""
    interface = request.parameters.text("interface")
    request.end()
    if interface not in (SERVICE, MANAGER):
        raise InterfaceNotFound(interface)
    return Reply({"description": interfaceDescription(interface)})
