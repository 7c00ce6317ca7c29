"""What is said of a wrong value: its key, what is wrong, what to write; and that is accepted."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chanproxy import config
from chanproxy.config import (
    ConfigurationError,
    Problem,
    access,
    channels,
    containers,
    reading,
    scheduling,
)
from chanproxy.config import limits as limitsTable
from chanproxy.config.adoption import KEYS as ADOPTION
from chanproxy.config.keys import Key
from chanproxy.endpoints.parsing import parseAddress
from chanproxy.endpoints.paths import parseControl, parseVarlink
from chanproxy.freezers import checkedSpec
from chanproxy.words import Wrong, written

WRONG: Sequence[Any] = [
    *(True, False, 5, -1, 0, 1.5, 1e3, 10**9, 10**400, 1e300, float("nan"), float("inf")),
    *("", " ", "x", "true", "none", "never", "AUTO", "Sockets", "dry_run", "answer", "5%", "-1"),
    *("5m", "0.5", "10 minutes", "1h", "500ms", "0s", "3 days", "99h", "10", "1_000", "soon"),
    *("localhost:8080", "8080", ":8080", "127.0.0.1:8080", "[::1]:8080", "::1:80", "http://h/x"),
    *("/run/a.sock", "@a", "run/a.sock", "/", "~", "tcp:8080", "tcp:localhost", "tcp:::1:80"),
    *("unix:a", "unix:/a:mode=rw", "unix:/a:660", "UNIX:/a", "seqpaket:/a", "tcp6:a:1", "udp:80"),
    *("tcp:80:interface=lo", "vsock:any:1", "vsock:x", "systemd:", "systemd:domain=unix", "tls:"),
    *("cgroup", "cgroup:", "cgroup:/", "cgroup:..", "cgroup: x", "cgroup=x", "Cgroup:x", "pgrp:1"),
    *("/sys/fs/cgroup/x", "a.slice", "None", "docker:x", "cgroup:a\nb", "a'b", 'a"b', "é:1"),
    *([], ["x"], [5], [True], [""], ["TCP:*:80"], ["tcp:80"], ["timer"], ["root", 1.5], [[1]], {}),
    {"a": 1},
]
"""What people write, and what they do not: for each key."""

TABLES: Mapping[str, tuple[Sequence[str], Mapping[str, Any], Sequence[Key]]] = {
    "": ((), {}, tuple(reading.KEYS.values())),
    "limits": (("limits",), {}, tuple(limitsTable.KEYS.values())),
    "scheduling": (("scheduling",), {}, tuple(scheduling.KEYS.values())),
    "container": (("containers", "a"), {"freezer": "cgroup:a"}, containers.ALL),
    "channel": (
        ("containers", "a", "channels", "r"),
        {"listen": "seqpacket:/run/r", "connect": "seqpacket:/srv/r"},
        channels.ALL,
    ),
    "access": (("access", "x"), {"users": [0], "containers": ["a"]}, access.ALL),
}
"""Each table: where it is, what has to be in it, and its keys."""

KEYS = [(table, key.name) for table, (_, _, keys) in TABLES.items() for key in keys]


def problems(table: str, changed: Mapping[str, Any]) -> dict[str, list[Problem]]:
    """What is wrong with a table of such values, by the keys of it; L{None} leaves one out."""
    place, needed, _ = TABLES[table]
    tree: dict[str, Any] = {"containers": {"a": {"freezer": "none"}}}
    if table == "access":
        tree["control"] = "seqpacket:@c:mode=666"
    values = {**needed, **changed}
    if table == "container" and values.keys() & {key.name for key in ADOPTION.values()}:
        values.setdefault("wake-on", "sockets")
    inner = tree
    for name in place:
        inner = inner.setdefault(name, {})
    inner |= {name: value for name, value in values.items() if value is not None}
    found: dict[str, list[Problem]] = {}
    try:
        config.fromTree(tree)
    except ConfigurationError as error:
        prefix = "".join(f"{name}." for name in place)
        for problem in error.problems:
            assert problem.path.startswith(prefix), problem
            found.setdefault(problem.path.removeprefix(prefix), []).append(problem)
    return found


LIST = r"""\[(?:'[^']*'|"(?:[^"\\]|\\.)*"|[^\]'"])*\]"""

VALUE = rf"""('[^']*'|"(?:[^"\\]|\\.)*"|{LIST}|-?[\d.]+(?:e[+-]?\d+)?|true|false)"""


def proposals(key: str, remedy: str) -> Iterator[dict[str, Any]]:
    """All that a sentence says could be written, as keys with values."""
    texts: list[tuple[str, str]] = []
    for found in re.finditer(rf"([a-z-]+) = {VALUE}((?:, or {VALUE})*)", remedy):
        texts.append((found[1], found[2]))
        texts += [(found[1], each) for each in re.findall(VALUE, found[3])]
    if not texts and (numbers := re.search(r"from (\S+) to (\S+)$", remedy)):
        texts = [(key, numbers[1]), (key, numbers[2])]
    if not texts and re.match("write (one of|seconds|true|for example)", remedy):
        texts = [(key, each) for each in re.findall(VALUE, remedy)]
    for name, text in texts:
        yield {name: tomllib.loads(f"value = {text}")["value"]}
    if remedy.startswith("leave it out"):
        yield {key: None}


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_accepted(table: str, key: str) -> None:
    """Whatever is written for a key: where it is refused, what is proposed is taken."""
    refused = 0
    for value in WRONG:
        for problem in problems(table, {key: value}).get(key, []):
            refused += 1
            line = str(problem)
            assert problem.wrong, line
            assert problem.remedy, line
            proposed = list(proposals(key, problem.remedy))
            assert proposed, line
            for change in proposed:
                # One thing at a time may be wrong with it; what is said of others stays.
                left = problems(table, {key: value, **change}).get(key, [])
                assert problem.wrong not in [each.wrong for each in left], (line, change)
                if key in change:
                    # But for what does not go together with the rest of the table.
                    assert all("leave it out" in each.remedy for each in left), (line, change)
    assert refused > 10


@pytest.mark.parametrize(
    ("listening", "written_", "meant"),
    [
        (False, "localhost:8080", ["tcp:localhost:8080"]),
        (False, "8080", ["tcp:localhost:8080"]),
        (False, "0.0.0.0:80", ["tcp:localhost:80"]),
        (False, "my-host.example:80", ["tcp:my-host.example:80"]),
        (False, "[::1]:80", [r"tcp:\:\:1:80"]),
        (False, "tcp:::1:80", [r"tcp:\:\:1:80"]),
        (False, "tcp:8080", ["tcp:localhost:8080"]),
        (False, "tcp://localhost:80", ["tcp:localhost:80"]),
        (False, "tcp: localhost:80 ", ["tcp:localhost:80"]),
        (False, "TCP:localhost:80", ["tcp:localhost:80"]),
        (False, "tcp4:localhost:80", ["tcp:localhost:80"]),
        (False, "tcp6:localhost:80", ["tcp:localhost:80"]),
        (False, "http://localhost:8080/path", ["tcp:localhost:8080"]),
        (False, "https://example.org", ["tls:example.org:443"]),
        (False, "/run/a.sock", ["unix:/run/a.sock", "seqpacket:/run/a.sock"]),
        (False, "@a", ["unix:@a", "seqpacket:@a"]),
        (False, "/run/a:b", [r"unix:/run/a\:b", r"seqpacket:/run/a\:b"]),
        (False, "unix:/a:mode=660", ["unix:/a"]),
        (False, "unix:path=/a", ["unix:/a"]),
        (False, "vsock:any:80", ["vsock:host:80"]),
        (True, "localhost:8080", ["tcp:8080"]),
        (True, ":8080", ["tcp:8080"]),
        (True, "*:8080", ["tcp:8080:interface=0.0.0.0"]),
        (True, "127.0.0.1:80", ["tcp:80:interface=127.0.0.1"]),
        (True, "tcp:localhost:8080", ["tcp:8080"]),
        (True, "tcp:80:interface=::1", [r"tcp:80:interface=\:\:1"]),
        (True, "tcp:80:interface=*", ["tcp:80:interface=0.0.0.0"]),
        (True, "tcp:80:backlog=x", ["tcp:80"]),
        (True, "unix:/a:660", ["unix:/a:mode=660"]),
        (True, "unix:/a:mod=0o660:unlink=true", ["unix:/a:mode=660:unlink=yes"]),
        (True, "unix:/run/", ["unix:/run/a.sock"]),
        (True, "vsock:any:80", ["vsock:80:cid=any"]),
        (True, "systemd:domain=unix:name=web", ["systemd:domain=UNIX:name=web"]),
        (True, "udp:80", []),
        (False, "fd:3", []),
        (False, "nonsense", []),
    ],
)
def test_addresses(listening: bool, written_: str, meant: list[str]) -> None:
    """The address that was meant, where that can be known; where it cannot, none."""
    with pytest.raises(Wrong) as caught:
        parseAddress(written_, listening)
    assert list(caught.value.better) == meant


@given(st.text(), st.sampled_from(["", "tcp:", "unix:", "x:", "/", "vsock:", "systemd:"]))
def test_anyText(text: str, head: str) -> None:
    """Whatever is written where a text is read: what is proposed is taken, and is one line."""
    for parse in (
        lambda each: parseAddress(each, True),
        lambda each: parseAddress(each, False),
        parseControl,
        parseVarlink,
        checkedSpec,
    ):
        said: list[Wrong] = []
        try:
            parse(head + text)
        except Wrong as error:
            said.append(error)
        for each in said:
            assert len(str(each).splitlines()) == 1
            for better in (*each.better, *each.examples):
                parse(str(better))
                assert tomllib.loads(f"v = {written(better)}") == {"v": better}


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        *(("None", ["none"]), ("off", ["none"]), ("none:", ["none"]), ("Cgroup:x", ["cgroup:x"])),
        *(
            ("cgroup=x", ["cgroup:x"]),
            ("/sys/fs/cgroup/x", ["cgroup:x"]),
            ("/x/y/", ["cgroup:x/y"]),
        ),
        *(("/sys/fs/cgroup/unified/x", ["cgroup:x"]), ("a.slice", ["systemd:a.slice"])),
        *(("cgroup: x", ["cgroup:x"]), ("pgrp:1", []), ("docker:", []), ("cgroup:/", [])),
    ],
)
def test_freezers(spec: str, meant: list[str]) -> None:
    """Likewise, of freezers; what there is, is listed, and "none" is no word of that sentence."""
    with pytest.raises(Wrong) as caught:
        checkedSpec(spec)
    assert list(caught.value.better) == meant
    if "is no freezer" in str(caught.value):
        assert "known are cgroup:PATH, docker:NAME, " in caught.value.wrong
        assert ", lxc:NAME, and none, which stops nothing" in caught.value.wrong


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(("my app", "my-app"), ("a.b", "a.b"), ("a/../..", "a"), ("..", "container")),
        *(("é", "container"), ("a\nb", "a-b")),
    ],
)
def test_freezerOfName(name: str, meant: str) -> None:
    """A name that cannot be used gives no path that cannot be, either."""
    with pytest.raises(ConfigurationError) as caught:
        config.fromTree({"containers": {name: {"freezer": "cgroup:/"}}})
    (problem,) = [each for each in caught.value.problems if each.path.endswith(".freezer")]
    assert problem.remedy == f"write for example freezer = 'cgroup:{meant}'"


CONTAINER = '[containers.a]\nfreezer = "none"\n'
"""Two lines: the one that is wrong is the third."""


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("suspend = auto", "write suspend = 'auto'"),
        ("suspend = off # never", "write suspend = 'off'"),
        ("suspend = \u201cauto\u201d", "write suspend = 'auto'"),
        ("suspend = 'auto", "write suspend = 'auto'"),
        ("suspend = True", "write one of 'auto', 'manual', 'dry-run', 'off'"),
        ("linger = ", "write a number of seconds from 0 to 86400"),
        ("linger: 5", "write linger = 5"),
        ("linger 5", "write linger = 5"),
        ("linger = 5s", "write linger = '5s'"),
        ("linger = 0,5", "write linger = 0.5"),
        ("linger = .5;", "write linger = 0.5"),
        ("max-asleep = 5m", "write max-asleep = '300s'"),
        ("max asleep = 15", "write max-asleep = 15"),
        ("ignore = [timerfd, udp:*:53]", "write ignore = ['timerfd', 'udp:*:53']"),
        ("trusted = yes", "write trusted = true"),
        (r'connect = "tcp:\:\:1:80"', r"write connect = 'tcp:\:\:1:80'"),
        ("linger = 1\nlinger = 2", "write each key once, and on a line of its own"),
        ("[containers.a]", "write each table once, with all of its keys"),
        ("[containers.my app]", "write [containers.my-app]"),
        ("[containers.b", "write [containers.b]"),
        ("// a comment", "begin a comment with #"),
        ("<xml>", "see https://toml.io for the language"),
    ],
)
def test_syntax(line: str, remedy: str) -> None:
    """What is no TOML: the line that was meant, which is TOML."""
    with pytest.raises(ConfigurationError) as caught:
        config.load(CONTAINER + line + "\n")
    (problem,) = caught.value.problems
    assert problem.remedy == remedy
    assert problem.path in ("line 3", "line 4", "file")
    if match := re.fullmatch(r"write (\S+ = .*|\[.*\])", remedy):
        tomllib.loads(match[1])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("linger = 1\n" + CONTAINER, "linger: is not known here; write linger into a table [conta"),
        (
            "message_bytes = 1\n" + CONTAINER,
            "message_bytes: is not known here; write message-bytes into the table [limits]",
        ),
        (CONTAINER + "listen = 'tcp:80'", "write listen into a table [containers.NAME.channels.N"),
        (CONTAINER + "watchdog = 1", "at the beginning of the file, before all tables"),
        (CONTAINER + "[channels.r]", "write channels as a table [containers.NAME.channels.NAME]"),
        (CONTAINER + "[containers.a.limits]", "write limits as a table [limits]"),
        (CONTAINER + "[containers.a.channels.r]\nfreezer = 'x'", "into a table [containers.NAME]"),
    ],
)
def test_misplaced(text: str, says: str) -> None:
    """A key that stands in a wrong table is no typing error of another one: where it belongs."""
    with pytest.raises(ConfigurationError) as caught:
        config.load(text)
    assert says in str(caught.value)


def test_byteOrderMark(tmp_path: Any) -> None:
    """Some editors put a mark at the beginning of a file, which is no part of it."""
    (tmp_path / "a.toml").write_text(CONTAINER, encoding="utf-8-sig")
    assert config.loadFile(tmp_path / "a.toml") == config.load(CONTAINER)
