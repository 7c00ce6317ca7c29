"""
For tests under trial: base classes that end what a test has started.

Under pytest with pytest-twisted, only L{ContainerTestCase} works: trial's own asynchronous
C{TestCase} wants to run the reactor itself.  See L{chanproxy.testing.plugin} there.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase, TestCase

from chanproxy import config
from chanproxy.container import Container, Surroundings
from chanproxy.service import ChanproxyService
from chanproxy.testing.fakefreezer import FakeFreezer
from chanproxy.testing.reactor import FakeReactor


class ContainerTestCase(SynchronousTestCase):
    """
    A container in a reactor in which time stands still.

    @ivar reactor: let time pass with C{run}, go round once with C{turn}.
    @ivar freezer: stops nothing, and does what the test says.
    @ivar container: named C{container}; it is frozen 0.5 s after all is quiet.
    """

    def setUp(self) -> None:
        """Make the container, and start it."""
        super().setUp()
        self.reactor = FakeReactor()
        self.freezer = FakeFreezer()
        self.container = Container(
            self.reactor, "container", self.freezer, around=Surroundings(recorded=False)
        )
        self.container.start()

    def tearDown(self) -> None:
        """Stop it."""
        self.container.stop()
        super().tearDown()


class ServiceTestCase(TestCase):
    """
    Real services on the global reactor, with a runtime directory of the test's own.

    @ivar directory: for the test's sockets, short enough for their paths; removed afterwards.
    """

    def setUp(self) -> Any:
        """Make the directory."""
        directory = tempfile.TemporaryDirectory(prefix="chanproxy-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        runtime = {"CHANPROXY_RUNTIME_DIRECTORY": os.path.join(directory.name, "runtime")}
        environment = mock.patch.dict(os.environ, runtime)
        environment.start()
        self.addCleanup(environment.stop)
        return super().setUp()

    def startChanproxy(self, text: str) -> ChanproxyService:
        """
        Start a service; it is stopped after the test.

        @param text: TOML, as in a configuration file.
        """
        from twisted.internet import reactor

        service = ChanproxyService(config.load(text), reactor)
        service.startService()
        self.addCleanup(service.stopService)
        return service
