"""What Twisted finds of chanproxy: the service, the endpoint prefix, and containers by name."""

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

from chanproxy.endpoints.seqpacket import SeqpacketParser
from chanproxy.freezers.runtimes.factories import FACTORIES

chanproxy = ServiceMaker(
    "chanproxy",
    "chanproxy.service.tap",
    "Freeze idle containers; wake on the first message.",
    "chanproxy",
)


@implementer(
    IPlugin, IStreamServerEndpointStringParser, IStreamClientEndpointStringParserWithReactor
)
class _Seqpacket(SeqpacketParser):
    pass


seqpacket = _Seqpacket()

# Each under a name of its own: so they are found.
docker, podman, systemd, runc, crun, lxc = FACTORIES
