"""What one configuration has that another has not, and what becomes of each key."""

from __future__ import annotations

import tomllib
from typing import Any

import attrs
import pytest

from chanproxy import config
from chanproxy.config import Changed, Reloaded
from chanproxy.config.adoption import KEYS as ADOPTION
from chanproxy.config.changes import FIXED, FIXED_LIMITS, Difference, Piece
from chanproxy.config.containers import KEYS
from chanproxy.config.keys import Key
from chanproxy.config.kinds import Choice, Flag, Items, Number, Seconds
from chanproxy.config.limits import KEYS as LIMITS

FILE = """
{top}
[containers.a]
freezer = "cgroup:a"
{a}
[containers.a.channels.one]
listen = "unix:/a/one"
connect = "unix:/a/inside"
{one}
{channels}
[containers.b]
freezer = "cgroup:b"
{rest}
"""


def loaded(**words: str) -> config.Configuration:
    """A file with more in it."""
    every = dict.fromkeys(("top", "a", "one", "channels", "rest"), "")
    return config.load(FILE.format(**{**every, **words}))


def differ(before: dict[str, str], after: dict[str, str], *there: str) -> Difference:
    return Difference(loaded(**before), loaded(**after), there or ("a", "b"))


def paths(pieces: list[Piece]) -> list[str]:
    return [piece.path for piece in pieces]


def test_same() -> None:
    """Nothing differs: nothing is to be done."""
    difference = differ({}, {})
    assert (difference.leaving, difference.entering, difference.kept) == ([], [], [])
    assert difference.reloaded == Reloaded()
    assert list(difference.reloaded.sentences()) == []
    assert difference.inForce == loaded()


def test_containers() -> None:
    """Those that are in one of them only; and one that is in both and does not run."""
    more = {"rest": '[containers.c]\nfreezer = "none"'}
    for before, after, there in (({}, more, ("a", "b")), (more, more, ("a", "b"))):
        difference = differ(before, after, *there)
        assert (paths(difference.leaving), paths(difference.entering)) == ([], ["containers.c"])
        assert difference.reloaded == Reloaded(added=("c",))
    difference = differ(more, {}, "a", "b", "c")
    assert (paths(difference.leaving), paths(difference.entering)) == (["containers.c"], [])
    assert difference.reloaded == Reloaded(removed=("c",))
    # Neither is what was removed already.
    assert differ(more, {}, "a", "b").reloaded == Reloaded()


def other(key: Key) -> str:
    """A value that is not the default, as it is written."""
    kind = key.kind
    if isinstance(kind, Flag):
        return "false" if key.default else "true"
    if isinstance(kind, Choice):
        return f'"{next(each for each in kind.choices if each not in (key.default, "dry-run"))}"'
    if isinstance(kind, Items):
        return '["timerfd"]'
    if isinstance(kind, (Number, Seconds)):
        return "7"
    texts = {"freezer": '"cgroup:c"', "timeouts": '"all"', "group": '"shop"'}
    return texts.get(key.name, '"/run/x/y"')


@pytest.mark.parametrize("name", [key.name for key in KEYS.values()])
def test_keys(name: str) -> None:
    """Each key of a container is seen; of all only the freezer has it made anew."""
    key = next(each for each in KEYS.values() if each.name == name)
    written = f"{name} = {other(key)}"
    if name == "freezer":
        before, after = loaded(), loaded()
        (a, b) = after.containers
        after = attrs.evolve(after, containers=(attrs.evolve(a, freezer="cgroup:c"), b))
        difference = Difference(before, after, ("a", "b"))
        assert difference.reloaded == Reloaded(changed=(Changed("a", anew=("freezer",)),))
        assert paths(difference.leaving) == paths(difference.entering) == ["containers.a"]
        return
    if name in ("on-demand", "stop-after"):
        # For a freezer that can start something, and with each other.
        at = next(at for at, each in KEYS.items() if each is key)
        before, value = loaded(), key.kind.check(tomllib.loads(written)[name])
        (a, b) = before.containers
        after = attrs.evolve(before, containers=(attrs.evolve(a, **{at: value}), b))
        difference = Difference(before, after, ("a", "b"))
        assert difference.reloaded == Reloaded(changed=(Changed("a", (name,)),))
        assert paths(difference.entering) == []
        return
    difference = differ({}, {"a": written})
    assert difference.reloaded == Reloaded(changed=(Changed("a", (name,)),))
    assert paths(difference.entering) == (["containers.a.control"] if name == "control" else [])
    assert len(difference.kept) == 1
    # In a dry run all of it is made anew.
    dry = 'suspend = "dry-run"\n'
    if name != "suspend":
        difference = differ({"a": dry}, {"a": dry + written})
        assert difference.reloaded == Reloaded(changed=(Changed("a", anew=(name,)),))


@pytest.mark.parametrize("name", [key.name for key in ADOPTION.values()])
def test_adoption(name: str) -> None:
    """Likewise of one that wakes by its own sockets; that it does has it made anew."""
    key = next(each for each in ADOPTION.values() if each.name == name)
    own = 'wake-on = "sockets"\nmax-asleep = 5\n'
    difference = differ({"a": own}, {"a": f"{own}{name} = {other(key)}"})
    assert difference.reloaded == Reloaded(changed=(Changed("a", (name,)),))
    difference = differ({"a": "max-asleep = 5"}, {"a": own})
    assert difference.reloaded == Reloaded(changed=(Changed("a", anew=("wake-on",)),))


@pytest.mark.parametrize("mode", ["auto", "off", "manual"])
def test_dryRun(mode: str) -> None:
    """To it and from it the container is made anew."""
    words = [{"a": f'suspend = "{each}"'} for each in (mode, "dry-run")]
    for before, after in (words, reversed(words)):
        difference = differ(before, after)
        assert difference.reloaded == Reloaded(changed=(Changed("a", anew=("suspend",)),))


def test_channels() -> None:
    """One that differs, one that comes, one that goes; those that are the same are not named."""
    two = '[containers.a.channels.two]\nlisten = "unix:/a/two"\nconnect = "unix:/a/inside"\n'
    three = two.replace("two", "three")
    difference = differ({"channels": two}, {"one": "initial = 1", "channels": two + three})
    where = "containers.a.channels"
    assert paths(difference.leaving) == [f"{where}.one"]
    assert paths(difference.entering) == [f"{where}.one", f"{where}.three"]
    assert difference.reloaded.changed == (Changed("a", (), ("one", "three")),)
    difference = differ({"channels": two}, {})
    assert (paths(difference.leaving), difference.entering) == ([f"{where}.two"], [])


@pytest.mark.parametrize("attribute", LIMITS)
def test_limits(attribute: str) -> None:
    """Each of them holds at once, or stays as it is, which is said again each time."""
    key = LIMITS[attribute]
    before = loaded()
    value = 7 if attribute == "messageDescriptors" else 5000
    after = loaded(top=f"[limits]\n{key.name} = {value}")
    difference = Difference(before, after, ("a", "b"))
    said = (f"limits.{key.name}",)
    fixed = attribute in FIXED_LIMITS
    assert difference.reloaded == (Reloaded(restart=said) if fixed else Reloaded(applied=said))
    assert getattr(difference.limits, attribute) == (key.default if fixed else value)
    again = Difference(difference.inForce, after, ("a", "b"))
    assert again.reloaded == Reloaded(restart=said if fixed else ())


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("control", 'control = "/run/other"'),
        ("watchdog", "watchdog = 9"),
        ("confine", "confine = false"),
        ("scheduling", "[scheduling]\nnice = 3"),
        ("http", 'http = "tcp:8081"'),
        ("varlink", 'varlink = "/run/v.sock"'),
        ("http-token-file", 'http = "tcp:8080"\nhttp-token-file = "/other/token"'),
        ("log", 'log = "json"'),
        ("history", "[history]\nkeep-days = 9"),
    ],
)
def test_fixed(key: str, text: str) -> None:
    """What holds as long as the service runs."""
    before = 'http = "tcp:8080"' if key == "http-token-file" else ""
    difference = differ({"top": before}, {"top": text})
    assert difference.reloaded == Reloaded(restart=(key,))
    assert difference.inForce == loaded(top=before)
    (said,) = difference.reloaded.sentences()
    assert said.startswith(f"{key}: needs a restart")


def test_everyKey() -> None:
    """No key of the file is forgotten: it is told, or it is a table of its own."""
    # The file itself is none.
    told = {*FIXED, "access", "limits", "containers", "file"}
    assert {each.name for each in attrs.fields(config.Configuration)} == told
    assert set(FIXED_LIMITS) < set(LIMITS)


def test_access() -> None:
    """Its tables hold at once."""
    top = 'control = "seqpacket:/run/c:mode=666"'
    table = '[access.x]\nusers = [1]\ncontainers = ["{}"]'
    difference = differ({"top": top}, {"top": top, "rest": table.format("a")})
    assert difference.reloaded == Reloaded(applied=("access",))
    assert difference.inForce.access[0].name == "x"


def test_sentences() -> None:
    """As a call answers it, and in words."""
    changed = (Changed("c", ("linger",), ("rpc",)), Changed("d", anew=("freezer", "wake-on")))
    reloaded = Reloaded(("a",), ("b",), changed, ("access",), ("control", "watchdog"))
    tree: dict[str, Any] = attrs.asdict(reloaded)
    for told in (reloaded, Reloaded.fromTree(tree)):
        assert list(told.sentences()) == [
            "container a: added",
            "container b: removed",
            "container c: changed: linger, channels.rpc",
            "container d: made anew, because of freezer, wake-on",
            "access: changed",
            "control, watchdog: needs a restart of the service; as before till then",
        ]
