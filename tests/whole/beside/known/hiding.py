"""An event loop that looks around ten times a second, and pings its peer every twenty."""

from __future__ import annotations

import select
import socket
import sys
import time

listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
poller = select.epoll()
poller.register(listening)
peers: dict[int, socket.socket] = {}
pings: dict[int, tuple[float, int]] = {}
while True:
    for fd, _ in poller.poll(0.1):
        if fd == listening.fileno():
            peer, _ = listening.accept()
            peers[peer.fileno()] = peer
            pings[peer.fileno()] = (time.monotonic() + 20, 1)
            poller.register(peer, select.EPOLLIN)
        elif not peers[fd].recv(100):
            del pings[fd]
            peers.pop(fd).close()
    for fd, (due, number) in list(pings.items()):
        if time.monotonic() >= due:
            peers[fd].sendall(b"ping %d\n" % number)
            pings[fd] = (due + 20, number + 1)
