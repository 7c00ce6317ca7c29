"""What Twisted finds of chanproxy: the service and the endpoint prefix."""

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

from chanproxy.endpoints.seqpacket import SeqpacketParser

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
