"""Addresses of all kinds as text, and which ends a channel may have."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chanproxy import config
from chanproxy.config import ConfigurationError
from chanproxy.endpoints.addresses import Address
from chanproxy.endpoints.containers import ContainerAddressSpec
from chanproxy.endpoints.parsing import OtherAddressSpec, parseAddress
from chanproxy.endpoints.paths import SeqpacketAddressSpec, UnixStreamAddressSpec
from chanproxy.endpoints.systemd import SystemdAddressSpec
from chanproxy.endpoints.tcp import TcpAddressSpec
from chanproxy.endpoints.vsock import ANY_CID, VsockAddressSpec


@pytest.mark.parametrize(
    ("description", "listening", "spec"),
    [
        ("seqpacket:/a:mode=660", True, SeqpacketAddressSpec("/a", 0o660)),
        ("unix:/a:mode=660:backlog=3", True, UnixStreamAddressSpec("/a", 0o660, 3)),
        ("unix:@a", False, UnixStreamAddressSpec("@a")),
        ("tcp:80", True, TcpAddressSpec("127.0.0.1", 80)),
        ("tcp:port=80:backlog=2", True, TcpAddressSpec("127.0.0.1", 80, 2)),
        ("tcp:80:interface=0.0.0.0", True, TcpAddressSpec("0.0.0.0", 80)),
        (r"tcp:80:interface=\:\:1", True, TcpAddressSpec("::1", 80)),
        ("tcp6:80", True, TcpAddressSpec("::1", 80)),
        ("tcp:example.org:80", False, TcpAddressSpec("example.org", 80)),
        ("tcp:host=example.org:port=80", False, TcpAddressSpec("example.org", 80)),
        (r"tcp:\:\:1:80", False, TcpAddressSpec("::1", 80)),
        ("vsock:1024", True, VsockAddressSpec(1, 1024)),
        ("vsock:1024:cid=any:backlog=1", True, VsockAddressSpec(ANY_CID, 1024, 1)),
        ("vsock:host:1024", False, VsockAddressSpec(2, 1024)),
        ("vsock:77:1024", False, VsockAddressSpec(77, 1024)),
        ("docker:web-1:80", False, ContainerAddressSpec("docker", "web-1", 80)),
        ("podman:a_b.c:8080", False, ContainerAddressSpec("podman", "a_b.c", 8080)),
        ("systemd:domain=UNIX:index=2", True, SystemdAddressSpec("UNIX", 2)),
        ("systemd:domain=INET:name=web", True, SystemdAddressSpec("INET", None, "web")),
        ("tls:example.org:443", False, OtherAddressSpec("tls", "tls:example.org:443")),
        ("haproxy:tcp:80", True, OtherAddressSpec("haproxy", "haproxy:tcp:80")),
    ],
)
def test_addresses(description: str, listening: bool, spec: Address) -> None:
    """As Twisted writes them, but on loopback only unless it is said."""
    assert parseAddress(description, listening) == spec


@pytest.mark.parametrize(
    ("description", "listening", "says"),
    [
        ("", True, "is no address"),
        ("nonsense", True, "is no address"),
        ("UNIX:/a", True, "is written unix"),
        ("Tcp:h:1", False, "is written tcp"),
        ("a b:c", True, "is no address"),
        ("x:a\nb", True, "is no address"),
        ("unix:a", True, "is relative"),
        ("unix", True, "as in unix:/run/a.sock"),
        ("tcp:65536", True, "is no port from 0 to 65535"),
        ("tcp", True, "one port"),
        ("tcp:1:2", True, "one port"),
        ("tcp:1:interface=localhost", True, "is no IP address"),
        ("tcp:1:interface=", True, "is no IP address"),
        ("tcp:1:mode=600", True, "no argument 'mode'; known are port, interface, backlog"),
        ("tcp:80", False, "a host and a port"),
        ("tcp:a:0", False, "is no port from 1 to 65535"),
        ("tcp:a b:1", False, "no name of a host"),
        ("tcp:a:1:timeout=3", False, "no argument 'timeout'"),
        ("tcp6:a:1", False, "to connect, tcp:HOST:PORT is for both; write 'tcp:a:1'"),
        ("vsock:1:2", True, "vsock:PORT"),
        ("vsock:any:2", False, "cid 'any'"),
        ("vsock:1", False, "vsock:CID:PORT"),
        ("docker:web:80", True, "docker is for connecting only"),
        ("docker:web", False, "a container and a port of it, as in docker:web:80"),
        ("docker:-web:80", False, "'-web' is no name of a container"),
        ("podman:web:0", False, "'0' is no port from 1 to 65535"),
        ("podman:web:80:timeout=1", False, "no argument 'timeout'"),
        ("systemd:domain=UNIX:index=0", False, "for listen only"),
        ("systemd:domain=X:index=0", True, "domain='X'"),
        ("systemd:domain=UNIX", True, "either index= or name="),
        ("systemd:domain=UNIX:index=a", True, "index='a'"),
    ],
)
def test_badAddresses(description: str, listening: bool, says: str) -> None:
    """A sentence says what is wrong."""
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        parseAddress(description, listening)
    assert len(str(caught.value).splitlines()) == 1


@given(
    st.sampled_from(["", "unix:", "tcp:", "tcp6:", "vsock:", "systemd:", "x:"]),
    st.text() | st.text(alphabet="ab:=\\/@10."),
    st.booleans(),
)
def test_anyAddress(kind: str, rest: str, listening: bool) -> None:
    """Whatever is written, the only exception is ValueError, of one line."""
    said = "nothing"
    try:
        parseAddress(kind + rest, listening)
    except ValueError as error:
        said = str(error)
    assert len(said.splitlines()) == 1


def problems(listen: str, connect: str, *keys: str, limits: str = "") -> list[str]:
    """What is wrong with such a channel, without its path."""
    text = (
        f'{limits}\n[containers.a]\nfreezer = "none"\n[containers.a.channels.c]\n'
        f"listen = '{listen}'\nconnect = '{connect}'\n" + "\n".join(keys)
    )
    try:
        config.load(text)
    except ConfigurationError as error:
        return [str(problem).removeprefix("containers.a.channels.c.") for problem in error.problems]
    return []


IDLE, FRAMED, REFUSE = 'handled = "idle"', 'framing = "length32"', 'descriptors = "refuse"'
CONSUMED, EXPLICIT = 'handled = "consumed"', 'handled = "explicit"'
CONTAINER, PEER = 'initiator = "container"', 'identity = "peer"'
PACKETS, UNIX, TCP = "seqpacket:/p", "unix:/u", "tcp:host:80"


@pytest.mark.parametrize(
    ("listen", "connect", "keys"),
    [
        ("unix:/a", UNIX, []),
        ("unix:/a", UNIX, [IDLE, "silence = 5"]),
        ("unix:/a", UNIX, [PEER]),
        ("seqpacket:/a", PACKETS, [PEER]),
        ("tcp:80", TCP, []),
        ("tcp:80", TCP, [IDLE]),
        ("tcp:80", TCP, [EXPLICIT]),
        ("tcp:80", TCP, ["unanswered = 0", "keepalive-idle = 0"]),
        ("tcp:80", TCP, ['unanswered = "5s"']),
        ("tcp:80", TCP, ['unanswered = "never"']),
        ("tcp:80", UNIX, [REFUSE, CONTAINER]),
        ("tcp:80", UNIX, [REFUSE]),
        ("unix:/a", TCP, [REFUSE, IDLE]),
        ("tcp:80", PACKETS, [REFUSE, FRAMED]),
        ("unix:/a", PACKETS, [REFUSE, FRAMED]),
        ("seqpacket:/a", UNIX, [REFUSE, FRAMED]),
        ("seqpacket:/a", TCP, [REFUSE, FRAMED, IDLE]),
        ("unix:/a", TCP, [REFUSE, CONTAINER]),
        ("systemd:domain=UNIX:index=0", PACKETS, []),
        ("systemd:domain=UNIX:index=0", UNIX, [PEER]),
        ("systemd:domain=INET:index=0", TCP, [IDLE]),
        ("haproxy:tcp:80", TCP, [IDLE]),
        ("tls:x", TCP, [IDLE]),
        ("haproxy:tcp:80", UNIX, []),
        ("tcp:80", "tls:host:443", [IDLE]),
        ("vsock:80", UNIX, [REFUSE]),
    ],
)
def test_together(listen: str, connect: str, keys: list[str]) -> None:
    """What goes together, with the keys that say how."""
    assert problems(listen, connect, *keys) == []


@pytest.mark.parametrize(
    ("listen", "connect", "keys", "says"),
    [
        ("seqpacket:/a", UNIX, [], ["framing", "descriptors"]),
        ("seqpacket:/a", UNIX, [REFUSE], ["framing"]),
        ("seqpacket:/a", UNIX, [FRAMED], ["descriptors"]),
        ("tcp:80", PACKETS, [REFUSE], ["framing"]),
        ("tcp:80", UNIX, [], ["descriptors"]),
        ("tls:80", UNIX, [], ["descriptors"]),
        ("unix:/a", UNIX, [REFUSE], ["descriptors"]),
        ("unix:/a", UNIX, [FRAMED], ["framing"]),
        ("seqpacket:/a", PACKETS, [FRAMED], ["framing"]),
        ("tcp:80", TCP, [CONSUMED], ["handled"]),
        ("tcp:80", "tls:host:443", [CONSUMED], ["handled"]),
        ("tcp:80", UNIX, [REFUSE, CONTAINER, CONSUMED], ["handled"]),
        ("unix:/a", UNIX, [IDLE, "unanswered = 5"], ["unanswered"]),
        ("unix:/a", UNIX, [CONTAINER, "unanswered = 5"], ["unanswered"]),
        ("tcp:80", TCP, ["keepalive-idle = 40000"], ["keepalive-idle"]),
        ("tcp:80", TCP, ["keepalive-interval = 0"], ["keepalive-interval"]),
        ("tcp:80", TCP, ["keepalive-count = 1.5"], ["keepalive-count"]),
        ("unix:/a", UNIX, ["silence = 5"], ["silence"]),
        ("unix:/a", UNIX, [IDLE, "silence = 0"], ["silence"]),
        ("tcp:80", UNIX, [REFUSE, PEER], ["identity"]),
        ("unix:/a", UNIX, [CONTAINER, PEER], ["identity"]),
        ("unix:/a", "unix:/a", [], ["connect"]),
        ("tcp:80", "tcp:127.0.0.1:80", [IDLE], ["connect"]),
        ("tcp:80", "tcp:localhost:80", [IDLE], ["connect"]),
        ("tcp:80:interface=0.0.0.0", "tcp:127.0.0.2:80", [IDLE], ["connect"]),
    ],
)
def test_notTogether(listen: str, connect: str, keys: list[str], says: list[str]) -> None:
    """What does not, with the keys that are missing, or too many."""
    assert [line.split(": ")[0] for line in problems(listen, connect, *keys)] == says


def test_sentences() -> None:
    """They say what is missing, and what to write."""
    assert problems("seqpacket:/a", TCP, CONSUMED) == [
        "framing: is missing: of the two ends only listen keeps message boundaries; "
        'write framing = "length32", or give two ends of one kind',
        "descriptors: is missing: of the two ends only listen can carry descriptors; "
        'write descriptors = "refuse" to close a connection on which some come',
        "handled: consumed is not known on tcp: nothing shows what the container has read; "
        'write handled = "answered", "idle", or "explicit"',
    ]


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("unix:/a", "seqpacket:/a", True),
        ("unix:/a", "unix:/b", False),
        ("tcp:80", "tcp:80", True),
        ("tcp:80", "tcp:81", False),
        ("tcp:80", "tcp:80:interface=127.0.0.2", False),
        ("tcp:80:interface=127.0.0.2", "tcp:80:interface=0.0.0.0", True),
        ("tcp:80:interface=0.0.0.0", "tcp6:80", False),
        ("tcp:0", "tcp:0", False),
        ("systemd:domain=UNIX:index=1", "systemd:domain=UNIX:index=1", True),
        ("systemd:domain=UNIX:index=1", "systemd:domain=UNIX:index=2", False),
        ("vsock:1", "vsock:1", True),
        ("haproxy:tcp:1", "haproxy:tcp:1", True),
    ],
)
def test_oneSocketTwice(one: str, other: str, clash: bool) -> None:
    """Two channels on one socket: each names the other."""
    more = ['connect = "tls:h:1"', IDLE, REFUSE]
    text = '[containers.a]\nfreezer = "none"\n'
    for name, listen in (("c", one), ("d", other)):
        text += "\n".join([f"[containers.a.channels.{name}]", f"listen = '{listen}'", *more, ""])
    try:
        config.load(text)
    except ConfigurationError as error:
        lines = [str(each) for each in error.problems if "is the same socket" in str(each)]
    else:
        lines = []
    assert len(lines) == (2 if clash else 0)


def test_bufferHoldsAFrame() -> None:
    """A frame that could never be whole in the buffer is refused at the start."""
    limits = "[limits]\nendpoint-buffer = 4096\n"
    keys = [FRAMED, REFUSE, IDLE]
    (line,) = problems("seqpacket:/a", "tls:host:1", *keys, limits=limits)
    assert line.startswith("limits.endpoint-buffer: 4096 holds no frame of message-bytes = 212992")
    assert problems("seqpacket:/a", TCP, *keys, limits=limits) == []
    assert (
        problems("seqpacket:/a", "tls:host:1", *keys, limits=f"{limits}message-bytes = 4092") == []
    )
