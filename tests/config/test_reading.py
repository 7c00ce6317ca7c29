"""The configuration: what is read, and everything that is wrong at once."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import endpoints

from chanproxy import config
from chanproxy.adopt.settings import BREATH, Adoption
from chanproxy.config import (
    Channel,
    Configuration,
    ConfigurationError,
    Container,
    History,
    Limits,
)
from chanproxy.endpoints.addresses import split
from chanproxy.endpoints.paths import PATH_BYTES, SeqpacketAddressSpec, parseSeqpacket
from chanproxy.kernel.keepalive import Keepalive
from docs import write_keys
from support.places import DOCS

MINIMAL = '[containers.a]\nfreezer = "none"\n'

EDITOR = """
control = "@control"

[limits]
message-bytes = 1000
message-descriptors = 3
connect-timeout = 2
control-bytes = 2000
control-connections = 5
wake-sources = 6
wake-locks = 7
wake-watchers = 0
endpoint-buffer = 2048

[containers.editor]
freezer = "cgroup:/sys/fs/cgroup/editor"
linger = 1
suspend = "manual"
freeze-warning = 2
freeze-limit = 3
signal-interval = 0
watched-processes = 0

[containers.editor.channels.rpc]
listen = "seqpacket:/run/rpc.sock:mode=660"
connect = "tcp:host:80"
initiator = "container"
handled = "idle"
silence = 3
framing = "length32"
descriptors = "refuse"
keepalive-idle = 4
keepalive-interval = 5
keepalive-count = 6

[containers.editor.channels.bus]
listen = "unix:/run/bus.sock"
connect = "unix:/srv/bus.sock"
handled = "explicit"
identity = "peer"
"""


def problems(text: str) -> list[str]:
    """The lines of what C{load} says about a text that is wrong."""
    with pytest.raises(ConfigurationError) as caught:
        config.load(text)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems)
    assert all(
        problem.path and problem.wrong and problem.remedy for problem in caught.value.problems
    )
    return lines


def channel(name: str, listen: str, connect: str = "seqpacket:/srv/x", container: str = "a") -> str:
    """A channel's table."""
    return f"[containers.{container}.channels.{name}]\nlisten = '{listen}'\nconnect = '{connect}'\n"


def test_everythingGiven() -> None:
    """Each key arrives in its attribute."""
    rpc = Channel(
        name="rpc",
        listen="seqpacket:/run/rpc.sock:mode=660",
        connect="tcp:host:80",
        initiator="container",
        handled="idle",
        silence=3.0,
        framing="length32",
        descriptors="refuse",
        keepalive=Keepalive(4, 5, 6),
    )
    bus = Channel(
        name="bus",
        listen="unix:/run/bus.sock",
        connect="unix:/srv/bus.sock",
        handled="explicit",
        identity="peer",
    )
    editor = Container(
        "editor",
        "cgroup:/sys/fs/cgroup/editor",
        linger=1.0,
        suspend="manual",
        channels=(rpc, bus),
        freezeWarning=2.0,
        freezeLimit=3.0,
        signalInterval=0.0,
        watchedProcesses=0,
    )
    limits = Limits(
        messageBytes=1000,
        messageDescriptors=3,
        connectTimeout=2.0,
        controlBytes=2000,
        controlConnections=5,
        wakeSources=6,
        wakeLocks=7,
        wakeWatchers=0,
        endpointBuffer=2048,
    )
    control = SeqpacketAddressSpec("@control")
    assert config.load(EDITOR) == Configuration(limits, (editor,), control)


def test_defaults() -> None:
    """A freezer is all that must be said."""
    read = config.load(MINIMAL + channel("r", "seqpacket:/run/r"))
    assert read.limits == Limits(212992, 253, 10.0, 65536, 256, 32768, 1024)
    assert (read.limits.wakeWatchers, read.limits.endpointBuffer) == (256, 262144)
    assert (read.control, read.access) == (None, ())
    (container,) = read.containers
    assert (container.linger, container.suspend) == (0.5, "auto")
    assert (container.freezeWarning, container.freezeLimit) == (1.0, 30.0)
    assert (container.signalInterval, container.watchedProcesses) == (2.0, 256)
    assert (container.channels[0].initiator, container.channels[0].handled) == (
        "remote",
        "answered",
    )


def test_frozen() -> None:
    """Nobody changes a configuration that was checked."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.load(MINIMAL).limits.messageBytes = 1  # type: ignore[misc]  # that is the point


def test_allAtOnce() -> None:
    """One error has a line for each problem, with the key's path."""
    text = """
    [limits]
    message-bytes = 0
    [containers.editor]
    freezr = "none"
    linger = -1
    suspend = "never"
    [containers.editor.channels.rpc]
    listen = "unix:run/rpc.sock"
    connect = "seqpacket:/srv/rpc.sock:mode=600"
    """
    paths = [line.split(": ")[0] for line in problems(text)]
    assert sorted(paths) == [
        "containers.editor.channels.rpc.connect",
        "containers.editor.channels.rpc.listen",
        "containers.editor.freezer",
        "containers.editor.freezr",
        "containers.editor.linger",
        "containers.editor.suspend",
        "limits.message-bytes",
    ]


@pytest.mark.parametrize(
    ("key", "near"),
    [("lingr", "linger"), ("Suspend", "suspend"), ("freezer_", "freezer"), ("chanels", "channels")],
)
def test_unknownKeyNamesTheNearest(key: str, near: str) -> None:
    """A typing error is answered with the key that was meant."""
    assert problems(f"{MINIMAL}{key} = 1") == [
        f"containers.a.{key}: is not known; did you mean {near}?"
    ]


def test_underscores() -> None:
    """Underscores for dashes are the likeliest error."""
    assert "did you mean message-bytes?" in problems(f"{MINIMAL}[limits]\nmessage_bytes = 1")[0]


def test_unknownKeyLikeNoOther() -> None:
    """Without a near key, the known ones are listed."""
    assert problems(f"{MINIMAL}[limits]\nzzz = 1") == [
        "limits.zzz: is not known; known are message-bytes, message-descriptors, connect-timeout, "
        "control-bytes, control-connections, wake-sources, wake-locks, wake-watchers, containers, "
        "trace-bytes, endpoint-buffer, container-descriptors, user-descriptors, log-lines, "
        "cgroups, cgroup-depth, processes, http-bytes, http-connections, http-streams and 1 more"
    ]


def test_history() -> None:
    """A path, and the words that stand for one; the file's limits."""
    assert config.load(MINIMAL).history == History("auto", 30, 32 * 1024 * 1024)
    for path in ("off", "auto", "/var/lib/history"):
        table = f'[history]\npath = "{path}"\nkeep-days = 1\nmax-bytes = 1048576\n'
        assert config.load(MINIMAL + table).history == History(path, 1, 1048576)
    for wrong in ('"history"', '"/"', '"/var/"', '""', '"/a\\u0000b"', "3"):
        (line,) = problems(f"{MINIMAL}[history]\npath = {wrong}\n")
        assert line.startswith("history.path: ")
        assert "write for example path = '/var/lib/chanproxy/history.sqlite'" in line
    assert problems(f"{MINIMAL}[history]\nkeep-days = 0\nmax-bytes = 1000\npaht = 1\n") == [
        "history.keep-days: 0 is out of range; write a whole number of days from 1 to 3660",
        "history.max-bytes: 1000 is out of range; write a whole number of bytes from 1048576 to "
        "1099511627776",
        "history.paht: is not known; did you mean path?",
    ]


@pytest.mark.parametrize("key", ["", "a b", "x\\ny", "\\u2028"])
def test_oddKeysStayOnOneLine(key: str) -> None:
    """What needs quotes in TOML has them in the path; an empty key is not its table."""
    (line,) = problems(f'{MINIMAL}"{key}" = 1')
    assert line.startswith("containers.a.'")


@pytest.mark.parametrize(
    "value",
    ["-0.1", "nan", "inf", "-inf", "86400.1", "true", '"1m"', "[]", "{}", "1979-05-27", "1e400"],
)
def test_badLinger(value: str) -> None:
    """The range, and the type; a truth value is no number."""
    (line,) = problems(f"{MINIMAL}linger = {value}")
    assert line.startswith("containers.a.linger: ")
    meant = "write linger = 60" if value == '"1m"' else "write a number of seconds from 0 to 86400"
    assert line.endswith(f"; {meant}")


@pytest.mark.parametrize("value", ["0", "0.0", "86400"])
def test_goodLinger(value: str) -> None:
    """The ends of the range belong to it."""
    assert config.load(f"{MINIMAL}linger = {value}").containers[0].linger == float(value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("message-bytes", "0"),
        ("message-bytes", "67108865"),
        ("message-bytes", "1.5"),
        ("message-bytes", "true"),
        ("message-bytes", "0x" + "f" * 5000),
        ("message-descriptors", "-1"),
        ("message-descriptors", "254"),
        ("control-bytes", "1023"),
        ("control-bytes", "67108865"),
        ("control-connections", "0"),
        ("control-connections", "65537"),
        ("wake-sources", "0"),
        ("wake-sources", "1000001"),
        ("wake-locks", "0"),
        ("wake-locks", "1.0"),
        ("wake-watchers", "-1"),
        ("endpoint-buffer", "1023"),
        ("connect-timeout", "-1"),
        ("connect-timeout", "nan"),
        ("connect-timeout", "0x" + "f" * 5000),
    ],
)
def test_badLimits(key: str, value: str) -> None:
    """Each limit has its own range, even for numbers that Python does not write out."""
    (line,) = problems(f"{MINIMAL}[limits]\n{key} = {value}")
    assert line.startswith(f"limits.{key}: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("message-bytes", 1),
        ("message-bytes", 67108864),
        ("message-descriptors", 0),
        ("message-descriptors", 253),
        ("control-bytes", 1024),
        ("control-bytes", 67108864),
        ("control-connections", 1),
        ("control-connections", 65536),
        ("wake-sources", 1),
        ("wake-locks", 1000000),
        ("endpoint-buffer", 1024),
    ],
)
def test_limitsAtTheEnds(key: str, value: int) -> None:
    """The ends of the ranges belong to them."""
    config.load(f"{MINIMAL}[limits]\n{key} = {value}")


@pytest.mark.parametrize(
    ("key", "bad", "good"),
    [
        ("freeze-warning", ["0", "86401", "nan", "true"], ["0.001", "86400"]),
        ("freeze-limit", ["0", "86401", '"0s"'], ["0.001", '"1"', '"30s"']),
        ("signal-interval", ["-1", "86401"], ["0", "0.5", '"0.5s"']),
        ("watched-processes", ["-1", "65537", "1.0"], ["0", "65536"]),
    ],
)
def test_containersRanges(key: str, bad: list[str], good: list[str]) -> None:
    """The ranges of a container's own limits."""
    for value in good:
        config.load(f"{MINIMAL}{key} = {value}")
    for value in bad:
        (line,) = problems(f"{MINIMAL}{key} = {value}")
        assert line.startswith(f"containers.a.{key}: ")


@pytest.mark.parametrize("word", ["auto", "manual", "dry-run", "off"])
def test_suspend(word: str) -> None:
    """The ways to suspend."""
    assert config.load(f"{MINIMAL}suspend = '{word}'").containers[0].suspend == word


def test_rangeIsWrittenOut() -> None:
    """64 MiB is not rounded."""
    assert "from 1 to 67108864" in problems(f"{MINIMAL}[limits]\nmessage-bytes = 0")[0]


@pytest.mark.parametrize("text", ["", "[limits]", "[containers]", "containers = {}"])
def test_noContainer(text: str) -> None:
    """There must be one, or a way to add one."""
    assert problems(text) == [
        "containers: has no container; write at least one table, [containers.NAME], "
        "or control, to add them later"
    ]


def test_controlOnly() -> None:
    """With a control socket containers can be added later."""
    read = config.load('control = "@control"')
    assert (read.containers, read.control) == ((), SeqpacketAddressSpec("@control"))
    assert problems("control = 1") == [
        "control: is a whole number; write for example control = '/run/chanproxy/control.sock'"
    ]


def test_noContainerAndMore() -> None:
    """A missing container is said beside other problems."""
    assert len(problems("[limits]\nx = 1")) == 2


@pytest.mark.parametrize("text", ["containers = 1", "limits = []\n" + MINIMAL, "containers.a = 1"])
def test_notATable(text: str) -> None:
    """A value where a table belongs."""
    assert any("write a table" in line or "write tables" in line for line in problems(text))


@pytest.mark.parametrize("name", ["a b", "", "a/b", "é", "a\\n", "#1"])
def test_badNames(name: str) -> None:
    """Names appear in log lines and file names: few characters are allowed."""
    (line,) = problems(f'[containers."{name}"]\nfreezer = "none"')
    assert line.endswith(": is no usable name; use letters, digits, dot, - and _")
    text = MINIMAL + channel(f'"{name}"', "seqpacket:/run/r")
    assert problems(text)[0].startswith("containers.a.channels.'")


@pytest.mark.parametrize("name", ["a", "A-1", "x_y", '"a.b"'])
def test_goodNames(name: str) -> None:
    """These are fine."""
    config.load(f'[containers.{name}]\nfreezer = "none"')


@pytest.mark.parametrize("value", ['""', '"cgroup"', '"cgroup:"', '"None"', '"none:"', "1", "true"])
def test_badFreezer(value: str) -> None:
    """C{none} or C{cgroup:PATH}."""
    (line,) = problems(f"[containers.a]\nfreezer = {value}")
    assert line.startswith("containers.a.freezer: ")


def test_freezerIsRequired() -> None:
    """Whether a container may be frozen is not guessed."""
    assert problems("[containers.a]")[0].startswith("containers.a.freezer: is missing; ")


@pytest.mark.parametrize("key", ["listen", "connect"])
def test_channelNeedsBothEnds(key: str) -> None:
    """Neither end has a default."""
    text = f"{MINIMAL}[containers.a.channels.r]\n{key} = 'seqpacket:/run/r'"
    missing = "connect" if key == "listen" else "listen"
    assert problems(text)[0].startswith(f"containers.a.channels.r.{missing}: is missing; ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("initiator", '"both"'), ("initiator", "1"), ("handled", '"x"'), ("handled", "[[1]]")],
        *[("framing", '"x"'), ("descriptors", "true"), ("identity", '"root"')],
    ],
)
def test_badChoices(key: str, value: str) -> None:
    """The known words are listed."""
    text = f"{MINIMAL}{channel('r', 'seqpacket:/run/r')}{key} = {value}"
    (line,) = problems(text)
    assert line.startswith(f"containers.a.channels.r.{key}: ")
    assert "; write one of " in line


def test_deepTable() -> None:
    """Dotted keys nest without recursion, deeper than Python can write out."""
    (line,) = problems(f"{MINIMAL}suspend.{'.'.join('a' * 2000)} = 1")
    words = "'auto', 'manual', 'dry-run', 'off'"
    assert line == f"containers.a.suspend: is a table; write one of {words}"


@pytest.mark.parametrize("second", ["seqpacket:/run/r", "seqpacket:/run//./r:mode=660"])
def test_oneSocketTwice(second: str) -> None:
    """Across containers; each of the two names the other."""
    text = (
        MINIMAL
        + channel("r", "seqpacket:/run/r")
        + '[containers.b]\nfreezer = "none"\n'
        + channel("s", second, container="b")
    )
    one, two = "containers.a.channels.r.listen", "containers.b.channels.s.listen"
    remedy = "give each channel a path of its own"
    assert problems(text) == [
        f"{one}: is the same socket as {two}; {remedy}",
        f"{two}: is the same socket as {one}; {remedy}",
    ]


def test_oneSocketThreeTimes() -> None:
    """Each names both others."""
    lines = problems(MINIMAL + "".join(channel(n, "seqpacket:/run/r") for n in "xyz"))
    assert len(lines) == 3
    assert "containers.a.channels.x.listen, containers.a.channels.z.listen" in lines[1]


def test_keysThatReadAlike() -> None:
    """Dots in names make two keys read the same; the clash is found all the same."""
    listen = "seqpacket:/run/r"
    text = (
        MINIMAL
        + channel('"b.channels.c"', listen)
        + '[containers."a.channels.b"]\nfreezer = "none"\n'
        + channel("c", listen, container='"a.channels.b"')
    )
    assert len(problems(text)) == 2


def test_abstractIsNotAFile() -> None:
    """C{@run} and C{/run} are two addresses."""
    config.load(MINIMAL + channel("r", "seqpacket:@run/r") + channel("s", "seqpacket:/run/r"))


@pytest.mark.parametrize("connect", ["seqpacket:/run/r", "seqpacket:/run//r"])
def test_loop(connect: str) -> None:
    """A channel that dials itself."""
    (line,) = problems(MINIMAL + channel("r", "seqpacket:/run/r", connect))
    assert line.startswith("containers.a.channels.r.connect: is the same socket as ")


@pytest.mark.parametrize("second", ["cgroup:/c/x", "cgroup:/c/x/", "cgroup:/c//x"])
def test_oneFreezerTwice(second: str) -> None:
    """Two containers would freeze each other."""
    text = f"[containers.a]\nfreezer = 'cgroup:/c/x'\n[containers.b]\nfreezer = '{second}'"
    lines = problems(text)
    assert lines[0].startswith("containers.a.freezer: is the same freezer as containers.b.freezer;")
    assert lines[1].startswith("containers.b.freezer: is the same freezer as containers.a.freezer;")


def test_noFreezerTwice() -> None:
    """C{none} is nobody's."""
    assert len(config.load(MINIMAL + "[containers.b]\nfreezer = 'none'").containers) == 2


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("\n\na = \n", "line 3"),
        ("a = 1\na = 2\n", "line 2"),
        ("\n[a", "line 2"),
        ("a = ", "line 1"),
    ],
)
def test_syntax(text: str, path: str) -> None:
    """The path is the line; at the very end, where tomllib names none, the last one."""
    (line,) = problems(text)
    assert line.startswith(f"{path}: ")


@pytest.mark.parametrize("text", [f"a = {'9' * 5000}", f"a = {'[' * 5000}"])
def test_pythonsOwnLimits(text: str) -> None:
    """What tomllib raises other errors for."""
    assert problems(text)[0].startswith("file: ")


def test_loadFile(tmp_path: Path) -> None:
    """A file is read as its text is."""
    path = tmp_path / "chanproxy.toml"
    path.write_text(EDITOR)
    assert config.loadFile(path) == config.loadFile(str(path)) == config.load(EDITOR)


@pytest.mark.parametrize("name", ["missing.toml", ".", "a\0b", "a\nb"])
def test_unreadableFile(tmp_path: Path, name: str) -> None:
    """The path is the file's name, on one line."""
    with pytest.raises(ConfigurationError) as caught:
        config.loadFile(f"{tmp_path}/{name}")
    (problem,) = caught.value.problems
    assert str(tmp_path) in problem.file
    assert problem.path == ""
    assert len(str(problem).splitlines()) == 1


def test_notUTF8(tmp_path: Path) -> None:
    """Another encoding is named as the problem, with its line."""
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# one\n# \xe9")
    with pytest.raises(ConfigurationError, match=r"latin\.toml:2: .*; write the file in UTF-8$"):
        config.loadFile(path)


def test_endOfFile(tmp_path: Path) -> None:
    """A syntax error without a line has the file's name."""
    path = tmp_path / "cut.toml"
    path.write_text(f"a = {'9' * 5000}")
    with pytest.raises(ConfigurationError) as caught:
        config.loadFile(path)
    assert str(caught.value).startswith(f"{path}: a number has thousands of digits; ")


def test_fromOptions() -> None:
    """One channel without a file."""
    channel = {"listen": "seqpacket:/run/a", "connect": "seqpacket:/run/b"}
    read = config.fromOptions({"freezer": "none", "linger": 0.25}, channel)
    assert read == Configuration(
        Limits(),
        (
            Container(
                "container",
                "none",
                0.25,
                "auto",
                (Channel("channel", "seqpacket:/run/a", "seqpacket:/run/b"),),
            ),
        ),
    )


def test_fromOptionsControl() -> None:
    """The manager's socket, too."""
    read = config.fromOptions({"freezer": "none"}, control="/run/c")
    assert read.control == SeqpacketAddressSpec("/run/c")


@pytest.mark.parametrize("linger", ["soon", "nan", "-1", "", math.inf, 10**400, True])
def test_fromOptionsWrong(linger: str | float) -> None:
    """The paths are those of a file, all at once."""
    with pytest.raises(ConfigurationError) as caught:
        config.fromOptions(
            {"freezer": "x", "linger": linger, "suspend": "s"},
            {"listen": "tcp:x", "connect": "seqpacket:b", "handled": "h", "initiator": "i"},
            "n n",
        )
    assert [p.path for p in caught.value.problems].count("containers.'n n'.linger") == 1
    assert len(caught.value.problems) == 8


def test_parse() -> None:
    """Defaults, all arguments, and the abstract namespace."""
    assert parseSeqpacket("seqpacket:/a", True) == SeqpacketAddressSpec("/a", 0o600, 128, True)
    assert parseSeqpacket(
        "seqpacket:/a:mode=660:backlog=65535:unlink=no", True
    ) == SeqpacketAddressSpec("/a", 0o660, 65535, False)
    assert parseSeqpacket("seqpacket:@a", False).path == "@a"
    assert parseSeqpacket(r"seqpacket:/a\:b\=c\\d", False).path == r"/a:b=c\d"
    assert parseSeqpacket("seqpacket:/" + "a" * (PATH_BYTES - 1), True).path.endswith("a")


@pytest.mark.parametrize(
    ("description", "says"),
    [
        ("", "is no kind that takes calls here"),
        ("unix:/a", "'unix' is no kind that takes calls here"),
        ("seqpacket", "exactly one path"),
        ("seqpacket:", "exactly one path"),
        ("seqpacket:@", "exactly one path"),
        ("seqpacket:/a:/b", "exactly one path"),
        ("seqpacket:a", "relative"),
        ("seqpacket:/a/", "is a directory"),
        ("seqpacket:/a\0b", "zero byte"),
        ("seqpacket:/" + "a" * PATH_BYTES, "108 bytes"),
        ("seqpacket:/" + "é" * 54, "109 bytes"),
        ("seqpacket:/a\\", "backslash"),
        ("seqpacket:/a:mode=8", "mode='8'"),
        ("seqpacket:/a:mode=1000", "mode="),
        ("seqpacket:/a:mode=0o600", "mode="),
        ("seqpacket:/a:mode=", "mode=''"),
        ("seqpacket:/a:backlog=0", "backlog="),
        ("seqpacket:/a:backlog=65536", "backlog="),
        ("seqpacket:/a:backlog=1e2", "backlog="),
        ("seqpacket:/a:backlog=" + "9" * 5000, "backlog="),
        ("seqpacket:/a:unlink=true", "unlink="),
        ("seqpacket:/a:=x", "no argument ''"),
        ("seqpacket:/a:mod=600", "no argument 'mod'; known are mode, backlog, unlink"),
    ],
)
def test_badAddress(description: str, says: str) -> None:
    """A sentence says what is wrong."""
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        parseSeqpacket(description, True)
    assert len(str(caught.value).splitlines()) == 1


def test_connectingTakesAPathOnly() -> None:
    """A mode belongs to who listens."""
    with pytest.raises(ValueError, match="connecting takes a path only"):
        parseSeqpacket("seqpacket:/a:mode=600", False)


def test_aSentenceForEach() -> None:
    """All bad arguments at once."""
    with pytest.raises(ValueError, match=r"relative.*mode=.*backlog=.*unlink="):
        parseSeqpacket("seqpacket:a:mode=9:backlog=0:unlink=1", True)


@given(st.text(alphabet="ab:=\\/@", max_size=20))
def test_syntaxIsTwisteds(description: str) -> None:
    """Our splitting of endpoint strings agrees with the one of Twisted."""
    try:
        # Private, but there is no other way to see the pieces.
        arguments, options = endpoints._parse(description)
    except RuntimeError:
        # How Twisted reports a backslash at the end.
        with pytest.raises(ValueError, match="backslash"):
            split(description)
        return
    kind, *rest = arguments or [""]
    assert split(description) == (kind, rest, options)


@given(st.text(), st.booleans())
def test_anyAddress(description: str, listening: bool) -> None:
    """Whatever is written, the only exception is ValueError."""
    for text in (description, f"seqpacket:/{description}"):
        try:
            parseSeqpacket(text, listening)
        except ValueError as error:
            said = str(error)
        else:
            continue
        assert len(said.splitlines()) == 1


KEYS = st.sampled_from(
    [
        *("limits", "containers", "channels", "a", "b", "", "x\ny"),
        *("message-bytes", "message-descriptors", "connect-timeout"),
        *("freezer", "linger", "suspend", "listen", "connect", "initiator", "handled"),
        *("unanswered", "keepalive-idle", "keepalive-interval", "keepalive-count"),
        *("silence", "framing", "descriptors", "identity", "endpoint-buffer"),
        *(
            "control",
            "varlink",
            "access",
            "users",
            "groups",
            "trusted",
            "wake-locks",
            "freeze-limit",
        ),
    ]
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(alphabet=st.characters())
    | st.sampled_from(["none", "cgroup:/x", "seqpacket:/a", "seqpacket:/b", "auto", "consumed"])
    | st.sampled_from(["unix:/a", "tcp:80", "tcp:h:80", "tls:h:1", "idle", "length32", "refuse", 5])
    | st.sampled_from(["/a", "@a", "seqpacket:/a:mode=666", "*", "a", "b"])
)
TREES = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(), inner, max_size=5)
    ),
    max_leaves=30,
)
CHANNELS = st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=5) | TREES, max_size=3)
CONTAINERS = st.dictionaries(
    KEYS,
    st.fixed_dictionaries({"freezer": VALUES}, optional={"channels": CHANNELS, "linger": VALUES}),
    max_size=3,
)
ACCESS = st.dictionaries(
    KEYS,
    st.dictionaries(
        st.sampled_from(["users", "groups", "containers", "trusted"]),
        VALUES | st.lists(VALUES, max_size=3),
    ),
    max_size=3,
)


def _check(tree: Any) -> None:
    try:
        read = config.fromTree(tree)
    except ConfigurationError as error:
        problems = error.problems
    else:
        assert read.containers or any(read.sockets.values())
        return
    assert problems
    assert all(len(str(problem).splitlines()) == 1 for problem in problems)


@given(TREES)
def test_anyTree(tree: Any) -> None:
    """Whatever a file holds, the only exception is ConfigurationError, a line per problem."""
    _check(tree)


@given(
    st.fixed_dictionaries(
        {"containers": CONTAINERS}, optional={"limits": TREES, "control": VALUES, "access": ACCESS}
    )
)
def test_almostRightTree(tree: Any) -> None:
    """The same, for trees of the right shape, so that the checks between channels are reached."""
    _check(tree)


@given(st.text())
def test_anyText(text: str) -> None:
    """Nor does a text that is no TOML raise anything else."""
    with pytest.raises(ConfigurationError):
        config.load(text)


def test_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference's file holds the defaults, and the lines of errors that it shows are real."""
    reference = DOCS / "configuration.md"
    blocks = re.findall(r"^```(?:toml|text)\n(.*?)^```$", reference.read_text(), re.M | re.S)
    everything = blocks[0]
    (lines,) = (block for block in blocks if re.match(r"[^ ]+\.toml:[0-9]+: ", block))
    read = config.load(everything)
    assert read.limits == Limits()
    (entry,) = read.access
    assert not entry.trusted
    (editor,) = read.containers
    assert editor.adoption == Adoption(ignore=("udp:*:5353",))
    assert editor.maxAsleep == BREATH
    assert editor.control is not None
    bare = attrs.evolve(editor, channels=(), adoption=None, maxAsleep=0, control=None)
    assert bare == Container("editor", editor.freezer)
    (rpc,) = editor.channels
    assert rpc == Channel(rpc.name, rpc.listen, rpc.connect)
    wrong = '[containers.editor]\nfreezer = "none"\nsuspend = "maybe"\nlingr = 1\n'
    monkeypatch.chdir(tmp_path)
    Path("chanproxy.toml").write_text(wrong)
    with pytest.raises(ConfigurationError) as caught:
        config.loadFile("chanproxy.toml")
    assert str(caught.value) == lines.rstrip("\n")


def test_keys() -> None:
    """The reference's tables and the manager's interface say what the keys are."""
    for file, made in (
        (write_keys.PAGE, write_keys.page),
        (write_keys.INTERFACE, write_keys.interface),
    ):
        assert file.read_text() == made(file.read_text()), f"{file.name}: run make keys"
