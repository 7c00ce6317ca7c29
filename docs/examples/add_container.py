"""
A Twisted service that is there already, with a container added to it at run time.

    python add_container.py DIRECTORY

The application answers packets on DIRECTORY/inner, as a program in a container would; chanproxy
stands in front of it on DIRECTORY/outer.  Nothing is frozen here: the freezer is `none`.
"""

import os
import sys

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorCore
from twisted.internet.protocol import Factory
from twisted.internet.task import react

from chanproxy.channels import MessageProtocol
from chanproxy.config import Channel, Configuration, Container
from chanproxy.service import ChanproxyService


class Shout(MessageProtocol):
    """What the application did before, too."""

    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        self.transport.sendMessage(data.upper(), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


async def main(reactor: IReactorCore, directory: str) -> None:
    inner, outer = f"seqpacket:{directory}/inner", f"seqpacket:{directory}/outer"
    application = MultiService()
    shouting = StreamServerEndpointService(
        serverFromString(reactor, inner), Factory.forProtocol(Shout)
    )
    application.addService(shouting)

    chanproxy = ChanproxyService(Configuration(), reactor)
    application.addService(chanproxy)
    application.startService()

    channel = Channel("shout", listen=outer, connect=inner, handled="answered")
    container = chanproxy.addContainer(Container("app", "none", linger=0.05, channels=(channel,)))
    container.suspension.addWatcher(lambda state, reasons: print(state, *reasons, flush=True))

    reactor.addSystemEventTrigger("before", "shutdown", application.stopService)
    await Deferred()


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, sys.argv[1])))
