"""
A guest in plain asyncio: answers messages, and lets its container sleep between them.

    python guest_asyncio.py SOCKET

It needs the standard library and chanproxy.guest.  The environment says which container it is in
(CHANPROXY_CONTAINER) and where the service listens (CHANPROXY_CONTROL); SOCKET is a peer's.
"""

import asyncio
import socket
import sys

from chanproxy.guest import Guest, ServiceGone
from chanproxy.guest.waking import WakingCalls


async def main(path: str) -> None:
    loop = asyncio.get_running_loop()
    remote = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    remote.connect(path)
    with Guest() as guest:
        # From 1: awake until this program waits for its first message.
        channel, counter = guest.createProxy("answers", remote, initial=1)
        remote.close()
        channel.setblocking(False)
        with channel, counter, WakingCalls(counter, initial=1) as waking:
            while message := await waking.call(lambda: loop.sock_recv(channel, 65536)):
                await loop.sock_sendall(channel, message.upper())
                if message == b"backup":
                    await asyncio.to_thread(backUp, guest)


def backUp(guest: Guest) -> None:
    """A job that outlives its message."""
    try:
        with guest.wakeLock("backup", timeout=600):
            print("backing up", flush=True)
    except ServiceGone as error:
        # Then nobody suspends us, either.
        print(error, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
