"""
An echo server in Twisted: packets and descriptors by an endpoint string, no chanproxy service.

Usage: use_endpoint.py SOCKET
"""

import os
import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import IReactorCore
from twisted.internet.protocol import Factory
from twisted.internet.task import react

from chanproxy.channels import MessageProtocol


class Echo(MessageProtocol):
    """Sends each packet back, and writes it through its descriptors, too."""

    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        """A packet arrived; its descriptors are ours now."""
        for fd in descriptors:
            os.write(fd, data)
            os.close(fd)
        self.transport.sendMessage(data)


async def main(reactor: IReactorCore, path: str) -> None:
    endpoint = serverFromString(reactor, f"seqpacket:{quoteStringArgument(path)}:mode=600")
    await endpoint.listen(Factory.forProtocol(Echo))
    print("listening", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
