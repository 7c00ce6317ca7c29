"""The configuration of the manager: where it listens, and who may call it."""

from __future__ import annotations

import re

import attrs
import pytest

from chanproxy import config
from chanproxy.config import AccessEntry
from chanproxy.endpoints.paths import SeqpacketAddressSpec, parseControl
from tests.config.test_reading import MINIMAL, channel, problems


@pytest.mark.parametrize(
    ("written", "spec"),
    [
        ("/run/c", SeqpacketAddressSpec("/run/c")),
        ("@c", SeqpacketAddressSpec("@c")),
        ("seqpacket:/run/c", SeqpacketAddressSpec("/run/c")),
        ("seqpacket:/run/c:mode=666:backlog=5", SeqpacketAddressSpec("/run/c", 0o666, 5)),
        ("/run/c=d", SeqpacketAddressSpec("/run/c=d")),
    ],
)
def test_control(written: str, spec: SeqpacketAddressSpec) -> None:
    """A path is enough; an address says more."""
    assert config.load(f"control = '{written}'\n{MINIMAL}").control == spec


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("''", "exactly one path"),
        ("'c.sock'", "the path 'c.sock' is relative"),
        ("'/run/c:mode=666'", "that takes seqpacket: in front"),
        ("'unix:/run/c'", "'unix' is no kind"),
        ("'seqpacket:/run/c:mod=666'", "no argument 'mod'"),
        ("1", "is a whole number"),
    ],
)
def test_badControl(written: str, says: str) -> None:
    """A sentence with the way out; entries for a socket that is wrong are no second problem."""
    text = f"control = {written}\n{MINIMAL}[access.x]\nusers = [1]\ncontainers = ['a']"
    (line,) = problems(text)
    assert line.startswith("control: ")
    assert says in line
    assert "; write control = '" in line or "; write for example control = '" in line


@pytest.mark.parametrize("address", ["seqpacket:/run/c", "seqpacket:/run//c:mode=660"])
def test_controlIsAChannels(address: str) -> None:
    """One socket has one use."""
    control = "control = '/run/./c'\n"
    lines = problems(control + MINIMAL + channel("r", address))
    assert [line.split("; ")[0] for line in lines] == [
        "control: is the same socket as containers.a.channels.r.listen",
        "containers.a.channels.r.listen: is the same socket as control",
    ]
    connect = address.removesuffix(":mode=660")
    (line,) = problems(control + MINIMAL + channel("r", "seqpacket:/run/r", connect))
    assert line.startswith("containers.a.channels.r.connect: is the same socket as control,")


CONTROL = 'control = "seqpacket:@c:mode=666"\n' + MINIMAL


def test_access() -> None:
    """Each key arrives; what is left out is empty; a name that is given twice is there once."""
    text = """
    [access.dev]
    users = ["alice", 1000, "alice"]
    groups = ["dev", 0]
    containers = ["a", "*"]
    trusted = true
    [access.other]
    groups = [4294967294]
    containers = ["a"]
    """
    assert config.load(CONTROL + text).access == (
        AccessEntry("dev", ("alice", 1000), ("dev", 0), ("a", "*"), True),
        AccessEntry("other", (), (4294967294,), ("a",), False),
    )


@pytest.mark.parametrize(
    ("keys", "path", "says"),
    [
        ("containers = ['a']", "access.x", "names no user and no group"),
        ("users = []\ncontainers = ['a']", "access.x.users", "is an empty list"),
        ("users = 'alice'\ncontainers = ['a']", "access.x.users", "is a text"),
        ("users = [true]\ncontainers = ['a']", "access.x.users", "holds true or false"),
        ("users = [1.0]\ncontainers = ['a']", "access.x.users", "holds a number with"),
        ("users = [-1]\ncontainers = ['a']", "access.x.users", "holds -1"),
        ("groups = [4294967295]\ncontainers = ['a']", "access.x.groups", "holds 4294967295"),
        ("groups = ['']\ncontainers = ['a']", "access.x.groups", "holds ''"),
        ("groups = [['a']]\ncontainers = ['a']", "access.x.groups", "holds a list"),
        ("users = [1]", "access.x.containers", "is missing"),
        ("users = [1]\ncontainers = []", "access.x.containers", "is an empty list"),
        ("users = [1]\ncontainers = [1]", "access.x.containers", "holds a whole number"),
        ("users = [1]\ncontainers = ['A']", "access.x.containers", "did you mean a?"),
        ("users = [1]\ncontainers = ['zz']", "access.x.containers", "there are a"),
        ("users = [1]\ncontainers = ['a']\ntrusted = 1", "access.x.trusted", "a whole number"),
        ("users = [1]\ncontainers = ['a']\nuser = 1", "access.x.user", "did you mean users?"),
    ],
)
def test_badAccess(keys: str, path: str, says: str) -> None:
    """A line for each, with its key."""
    (line,) = problems(f"{CONTROL}[access.x]\n{keys}")
    assert line.startswith(f"{path}: ")
    assert says in line


ENTRY = "[access.x]\nusers = [1]\ncontainers = ['a']"


def test_accessToWhat() -> None:
    """Entries without a control socket can only be a mistake."""
    (line,) = problems(MINIMAL + ENTRY)
    assert line.startswith("access: applies to the control socket, and there is none; write ")


@pytest.mark.parametrize(
    "control", ["/c", "@c", "seqpacket:/c:mode=644", r"seqpacket:/a\:b\\c:mode=600"]
)
def test_accessButNoWayIn(control: str) -> None:
    """The mode is looked at first, so it has to let them in; the remedy that is named is one."""
    text = f"control = '{control}'\n{MINIMAL}{ENTRY}"
    if control == "seqpacket:/c:mode=644":
        assert "a socket of mode 644" in problems(text)[0]
    (line,) = problems(text)
    assert line.startswith("control: no other user can connect to a socket of mode 6")
    (written,) = re.findall(r"write (control = .*), for", line)
    read = config.load(f"{written}\n{MINIMAL}{ENTRY}").control
    assert read is not None
    assert read == attrs.evolve(parseControl(control), mode=0o666)


def test_byVarlink() -> None:
    """Who can connect where a stream is taken has a way in, whatever the other socket lets in."""
    others = "varlink = 'unix:/v:mode=666'\n"
    for more in ("", "control = '/c'\n"):
        config.load(f"{more}{others}{MINIMAL}{ENTRY}")
    (line,) = problems(f"varlink = '/v'\n{MINIMAL}{ENTRY}")
    assert line.startswith("varlink: no other user can connect to a socket of mode 600; write ")
    (written,) = re.findall(r"write (varlink = .*), for", line)
    config.load(f"{written}\n{MINIMAL}{ENTRY}")
    # One that is wrong itself is said to be wrong, and no more.
    (line,) = problems(f"varlink = 'tcp:80'\n{MINIMAL}{ENTRY}")
    assert line.startswith("varlink: 'tcp' is no kind that takes calls here")


def test_varlinkApart() -> None:
    """Each of the service's sockets has a path of its own; a channel does not lead to it."""
    lines = problems(f"control = '/run/c'\nvarlink = 'unix:/run/./c'\n{MINIMAL}")
    assert [line.partition(";")[0] for line in lines] == [
        "control: is the same socket as varlink",
        "varlink: is the same socket as control",
    ]
    lines = problems(f"http = 'unix:/run/c'\nvarlink = '/run/c'\n{MINIMAL}")
    assert len(lines) == 2
    leading = channel("r", "unix:/run/l", "unix:/run/c")
    (line,) = problems(f"varlink = '/run/c'\n{MINIMAL}{leading}")
    assert "is the same socket as varlink, chanproxy would dial itself" in line


@pytest.mark.parametrize("control", ["seqpacket:/c:mode=660", "seqpacket:@c:mode=644"])
def test_someWayIn(control: str) -> None:
    """Writing is what takes permission; where no file has a mode, any bit lets in."""
    config.load(f"control = '{control}'\n{MINIMAL}{ENTRY}")
