"""
A client of the manager in Twisted: gives a container a wake source, and watches it sleep and wake.

Usage: manager_client.py SOCKET CONTAINER
"""

import os
import sys

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from chanproxy.manager import ManagerClient, VarlinkError


async def main(reactor: IReactorTime, path: str, container: str) -> None:
    client = await ManagerClient.connect(reactor, path)
    for each in await client.listContainers():
        print(f"{each['name']} is {each['state']}")

    # A wake source is anything that can be polled, here a pipe; it goes when we disconnect.
    reading, writing = os.pipe()
    await client.addWakeSource(container, "example", reading, lifetime="connection")
    os.write(writing, b"!")
    try:
        await client.suspendContainer(container)
    except VarlinkError as error:
        print(f"not suspended: {error}")
    os.read(reading, 1)

    states: list[str] = []
    awake: Deferred[None] = Deferred()

    def changed(state: str, reasons: tuple[str, ...]) -> None:
        print(f"watching: {state} {', '.join(reasons)}".rstrip())
        states.append(state)
        if state == "asleep":
            reactor.callLater(0.1, os.write, writing, b"!")
        elif "asleep" in states and not awake.called:
            awake.callback(None)

    watch = await client.watch(container, changed)
    # Answered after the wake, on a connection of its own: the watcher may be told before or after.
    resumed = await client.suspendContainer(container, timeout=60)
    await awake
    print(f"asleep for {resumed['suspend_time'] / 1e9:.1f} s, until: {resumed['resume_reason']}")
    await watch.stop()
    client.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
