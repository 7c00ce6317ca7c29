"""Carries messages under the policy of custom_policy.py, and shows when they are handled."""

import os
import socket
import sys

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater, react

from chanproxy import config
from chanproxy.service import ChanproxyService


async def use(reactor: IReactorTime, directory: str) -> None:
    os.mkdir(directory)
    inner, outer = f"{directory}/inner", f"{directory}/outer"
    channel = config.Channel(
        "channel", f"seqpacket:{outer}", f"seqpacket:{inner}", handled="thrice"
    )
    container = config.Container("container", "none", suspend="manual", channels=(channel,))
    configuration = config.Configuration(containers=(container,))
    service = ChanproxyService(configuration, reactor)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer,
    ):
        listening.bind(inner)
        listening.listen()
        service.startService()
        try:
            peer.connect(outer)
            while not (proxies := list(service.containers["container"].channels.proxies())):
                await deferLater(reactor, 0.001)
            inside, _ = listening.accept()
            with inside:
                values = []
                peer.send(b"hello")
                while not proxies[0].inbound.messages:
                    await deferLater(reactor, 0.001)
                for back in range(1, 4):
                    values.append(proxies[0].counter.value())
                    inside.send(inside.recv(100) if back == 1 else b"again")
                    while proxies[0].outbound.messages < back:
                        await deferLater(reactor, 0.001)
                values.append(proxies[0].counter.value())
            print("not handled yet:", values)
            print("as expected" if values == [1, 1, 1, 0] else "something else")
        finally:
            await service.stopService()


if __name__ == "__main__":
    directory = sys.argv[1]
    os.environ["CHANPROXY_RUNTIME_DIRECTORY"] = f"{directory}-runtime"
    react(lambda reactor: Deferred.fromCoroutine(use(reactor, directory)))
