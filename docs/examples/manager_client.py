"""
A client of the manager in Twisted: keeps a container awake for a moment, and watches it sleep.

Usage: manager_client.py SOCKET CONTAINER
"""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from chanproxy.client import ManagerClient
from chanproxy.varlink import VarlinkError


async def main(reactor: Any, path: str, container: str) -> None:
    client = await ManagerClient.connect(reactor, path)
    for each in await client.listContainers():
        print(f"{each['name']} is {each['state']}")

    await client.acquireWakeLock(container, "example")
    try:
        await client.suspendContainer(container, timeout=0.2)
    except VarlinkError as error:
        print(f"not suspended: {error}")
    await client.releaseWakeLock(container, "example")

    def changed(state: str, reason: str) -> None:
        print(f"watching: {state} {reason}".rstrip())
        if reason == "timeout":
            awake.callback(None)

    awake: Deferred[None] = Deferred()
    watch = await client.watch(container, changed)
    resumed = await client.suspendContainer(container, timeout=0.2)
    await awake
    print(f"asleep for {resumed['suspend_time'] / 1e9:.1f} s, until: {resumed['resume_reason']}")
    await watch.stop()
    client.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
