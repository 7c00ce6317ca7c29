"""Tests of a program that uses chanproxy, under trial: `trial ./test_with_trial.py`."""

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory

from chanproxy.channels import MessageProtocol
from chanproxy.testing.cases import ContainerTestCase, ServiceTestCase


class LockTests(ContainerTestCase):
    """Logic, without a real clock or a real freezer."""

    def test_lockKeepsAwake(self) -> None:
        self.container.sources.locks.acquire("job")
        self.reactor.run(10)
        assert not self.freezer.frozen
        self.container.sources.locks.release("job")
        self.reactor.run(1)
        assert self.freezer.frozen


class Echo(MessageProtocol):
    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        self.transport.sendMessage(data)


class Ask(MessageProtocol):
    def __init__(self) -> None:
        self.answer: Deferred[bytes] = Deferred()

    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        self.answer.callback(data)


class EchoTests(ServiceTestCase):
    """A real service between real sockets."""

    def test_carried(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.carried())

    async def carried(self) -> None:
        inner, outer = (f"seqpacket:{self.directory}/{name}" for name in ("inner", "outer"))
        port = await serverFromString(reactor, inner).listen(Factory.forProtocol(Echo))
        self.addCleanup(port.stopListening)
        self.startChanproxy(
            '[containers.echo]\nfreezer = "none"\n[containers.echo.channels.rpc]\n'
            f'listen = "{outer}"\nconnect = "{inner}"\n'
        )
        asking = await clientFromString(reactor, outer).connect(Factory.forProtocol(Ask))
        asking.transport.sendMessage(b"hello")
        assert await asking.answer == b"hello"
        asking.transport.loseConnection()
