"""chanproxy in tests that trial runs: asynchronous C{TestCase}s and the global reactor."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from typing import Any
from unittest import mock

from twisted.internet import reactor as _module
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from chanproxy import config
from chanproxy.config import StartError
from chanproxy.service import ChanproxyService

reactor: Any = _module


class ServiceTests(TestCase):
    """The service below another program's own services."""

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        runtime = {"CHANPROXY_RUNTIME_DIRECTORY": self.directory + "/run"}
        environment = mock.patch.dict(os.environ, runtime)
        environment.start()
        self.addCleanup(environment.stop)

    def service(self) -> ChanproxyService:
        """One channel, never frozen."""
        ends = f"seqpacket:{self.directory}/out", f"seqpacket:{self.directory}/in"
        channels = (config.Channel("channel", *ends),)
        container = config.Container("container", "none", 0.05, channels=channels)
        return ChanproxyService(config.Configuration(containers=(container,)), reactor)

    async def _settled(self, service: ChanproxyService, state: str) -> None:
        for _ in range(500):
            if service.containers["container"].suspension.state == state:
                return
            await deferLater(reactor, 0.01)
        self.fail(f"never {state}")

    def test_wake(self) -> Deferred[None]:
        """A message wakes; when it is answered, the container sleeps again."""
        return Deferred.fromCoroutine(self._wake())

    async def _wake(self) -> None:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(listening.close)
        listening.bind(f"{self.directory}/in")
        listening.listen()
        service = self.service()
        service.startService()
        try:
            await self._settled(service, "asleep")
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.addCleanup(peer.close)
            peer.connect(f"{self.directory}/out")
            await self._settled(service, "awake")
            inside, _ = listening.accept()
            self.addCleanup(inside.close)
            await self._settled(service, "asleep")
            peer.send(b"hello")
            await self._settled(service, "awake")
            container = service.containers["container"]
            assert container.suspension.statistics.lastReason == "container/channel#1"
            # Unread, it keeps the container awake for longer than any linger time.
            await deferLater(reactor, 0.3)
            assert container.suspension.state == "awake"
            assert inside.recv(10) == b"hello"
            inside.send(b"hello yourself")
            await self._settled(service, "asleep")
        finally:
            await service.stopService()

    def test_cannotStart(self) -> Deferred[None]:
        """A second service on the same socket does not start, and the first goes on."""
        return Deferred.fromCoroutine(self._cannotStart())

    async def _cannotStart(self) -> None:
        first, second = self.service(), self.service()
        first.startService()
        try:
            why = ""
            try:
                second.startService()
            except StartError as error:
                why = str(error)
            assert "containers.container.channels.channel.listen" in why
            assert os.path.exists(f"{self.directory}/out")
        finally:
            await first.stopService()
