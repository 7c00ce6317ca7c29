"""Where keys stand: what C{tomllib} reads has each of its keys at one place, and there it is."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chanproxy import config
from chanproxy.config.places import Place, placesIn
from chanproxy.config.tables import join

KeyPath = tuple[str | int, ...]

EVERYTHING = '''\
# [not.a.table]
control = "@c"          # after a value
"quo\\u0074ed" . 'lit.eral'.bare = 1.5

[ limits ]
message-bytes = """
[containers.b]
linger = 5 \\""" # still the text
"""
descriptors = [ # a comment with ]
  1, [2, {"x" = "}", y.z = '] #'}],
  \'\'\'
  x = 1\'\'\'\'\',
]
[containers.a]
date = 1979-05-27 07:32:00
freezer = {name = "x", of = [
  {deep = 1}, {deep = 2},
], last = 3}
[[access]]
users = ["a"]
[[access]]
users = ["b"]
[access.inner]
x = 1
[[access.inner.list]]
y = 1
[containers]
'''

AT: dict[KeyPath, tuple[int, int]] = {
    ("control",): (2, 1),
    ("quoted",): (3, 1),
    ("quoted", "lit.eral"): (3, 17),
    ("quoted", "lit.eral", "bare"): (3, 28),
    ("limits",): (5, 3),
    ("limits", "message-bytes"): (6, 1),
    ("limits", "descriptors"): (10, 1),
    ("limits", "descriptors", 1, 1, "x"): (11, 11),
    ("limits", "descriptors", 1, 1, "y"): (11, 22),
    ("limits", "descriptors", 1, 1, "y", "z"): (11, 24),
    ("containers",): (27, 2),
    ("containers", "a"): (15, 13),
    ("containers", "a", "date"): (16, 1),
    ("containers", "a", "freezer"): (17, 1),
    ("containers", "a", "freezer", "name"): (17, 12),
    ("containers", "a", "freezer", "of"): (17, 24),
    ("containers", "a", "freezer", "of", 0, "deep"): (18, 4),
    ("containers", "a", "freezer", "of", 1, "deep"): (18, 16),
    ("containers", "a", "freezer", "last"): (19, 4),
    ("access",): (20, 3),
    ("access", 0, "users"): (21, 1),
    ("access", 1, "users"): (23, 1),
    ("access", 1, "inner"): (24, 9),
    ("access", 1, "inner", "x"): (25, 1),
    ("access", 1, "inner", "list"): (26, 16),
    ("access", 1, "inner", "list", 0, "y"): (27, 1),
}


def keysIn(tree: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The paths of all keys, also of those in lists."""
    pairs: Any = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, value in pairs:
        if isinstance(name, str):
            yield (*path, name)
        if isinstance(value, dict | list):
            yield from keysIn(value, (*path, name))


def keysOf(text: str) -> dict[KeyPath, Place]:
    """The places of keys, without those of items of lists."""
    return {path: place for path, place in placesIn(text).items() if isinstance(path[-1], str)}


def test_everything() -> None:
    """Each way to write a key."""
    at = dict(AT)
    # In this text it comes last.
    at["containers",] = (28, 2)
    assert {path: (p.line, p.column) for path, p in keysOf(EVERYTHING).items()} == at
    assert set(at) == set(keysIn(tomllib.loads(EVERYTHING)))


class Writer:
    """
    Writes a file, and remembers where each key begins.

    @ivar places: offsets; of a table that is only implied, where it is first.
    """

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self.draw = draw
        self.text = ""
        self.places: dict[KeyPath, int] = {}
        self._count = 0
        self._line = draw(st.sampled_from(["\n", "\r\n"]))

    def any(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def put(self, *pieces: str) -> None:
        self.text += "".join(pieces)

    def space(self) -> None:
        self.put(self.any("", "", " ", "\t "))

    def comment(self) -> str:
        texts = ("# x = [", '# """', "# '", "#", "# [a.b]", "# }")
        return str(self.any("", "", *texts))

    def newLine(self) -> None:
        self.put(self.comment(), self._line * self.any(1, 1, 2))

    def name(self, path: KeyPath, itself: bool) -> KeyPath:
        """Write one part of a key; no two are the same."""
        self._count += 1
        raw = f"{self.draw(NAMES)}-{self._count}"
        return self.write(path, raw, itself)

    def write(self, path: KeyPath, raw: str, itself: bool) -> KeyPath:
        shown = json.dumps(raw, ensure_ascii=False)
        if "'" not in raw and raw.isprintable() and self.any(True, False):
            shown = f"'{raw}'"
        if re.fullmatch("[A-Za-z0-9_-]+", raw) and self.any(True, True, False):
            shown = raw
        path = (*path, raw)
        if itself or path not in self.places:
            self.places[path] = len(self.text)
        self.put(shown)
        return path

    def key(self, path: KeyPath) -> KeyPath:
        """Write one, which may have dots."""
        for left in range(self.any(0, 0, 0, 1, 2), -1, -1):
            path = self.name(path, itself=left == 0)
            if left:
                self.space()
                self.put(".")
                self.space()
        return path

    def pair(self, path: KeyPath, depth: int) -> None:
        path = self.key(path)
        self.space()
        self.put("=")
        self.space()
        self.value(path, depth)

    def value(self, path: KeyPath, depth: int) -> None:
        kind = self.any("plain", "plain", "text", "list", "inline") if depth < 3 else "plain"
        if kind == "plain":
            self.put(self.any(*PLAIN))
        elif kind == "text":
            self.put(self.any(*TEXTS).replace("\n", self._line))
        elif kind == "list":
            self.put("[")
            for number in range(self.any(0, 1, 2)):
                self.put(self.any("", self._line, f"# ]{self._line}"))
                self.value((*path, number), depth + 1)
                self.put(self.any(",", f" , # [{self._line}"))
            self.put("]")
        else:
            self.put("{")
            for number in range(self.any(0, 1, 2)):
                self.put("," if number else "")
                self.space()
                self.pair(path, depth + 1)
            self.put("}")

    def document(self) -> None:
        """Pairs, and then tables with pairs; some are inside of others, some are lists."""
        tables: list[KeyPath] = []
        lists: dict[KeyPath, int] = {}
        for number in range(self.any(1, 2, 3, 5)):
            path: KeyPath = ()
            if number:
                path = self.header(tables, lists)
            for _ in range(self.any(0, 1, 3)):
                self.space()
                self.pair(path, 0)
                self.space()
                self.newLine()

    def header(self, tables: list[KeyPath], lists: dict[KeyPath, int]) -> KeyPath:
        """
        Begin a table.

        @param tables: that others can be made inside of.
        @param lists: of tables, with the number of the last one.
        """
        several = self.any(False, False, True)
        name = ""
        above: KeyPath = self.any((), *tables)
        if several and lists and self.any(True, False):
            again: KeyPath = self.any(*lists)
            # Names lead to the last of a list only: what is in those before is written no more.
            tables[:] = [each for each in tables if each[: len(again)] != again]
            for each in [each for each in lists if each[: len(again)] == again != each]:
                del lists[each]
            lists[again] += 1
            above, name = again[:-1], str(again[-1])
        self.put("[[" if several else "[")
        self.space()
        path: KeyPath = ()
        for part in above:
            path = (*path, part)
            if isinstance(part, str):
                self.write(path[:-1], part, itself=False)
                self.put(".")
        # Where a list is, its first item says.
        path = self.write(path, name, itself=False) if name else self.name(path, itself=True)
        if several:
            lists.setdefault(path, 0)
            path = (*path, lists[path])
        tables.append(path)
        self.space()
        self.put("]]" if several else "]")
        self.newLine()
        return path

    def at(self) -> dict[KeyPath, Place]:
        """The same as lines and columns."""
        found = {}
        for path, offset in self.places.items():
            before = self.text[:offset]
            found[path] = Place(before.count("\n") + 1, offset - before.rfind("\n"))
        return found


NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=3
) | st.sampled_from(["a", "b-c", "x.y", "#", "[", "]", "=", '"', "'", "{", "", "\\", "1"])

PLAIN = ("1", "-0.5", "true", "1979-05-27 07:32:00", "1979-05-27T07:32:00.5Z", "6.02e+23", "0x1f")

TEXTS = (
    '"x = 1 # \\" ] }"',
    "'[a] = \"#'",
    '"""\nx = 1\n[a]\n\\""" \\\\"""',
    '""""two"" \'\'\' quotes"""""',
    "'''\n[a]\n\"\"\" # x''''",
    '""',
    "''",
    '""""""',
    "''''''",
)


@st.composite
def documents(draw: Callable[[Any], Any]) -> Writer:
    """One."""
    writer = Writer(draw)
    writer.document()
    return writer


@given(documents())
@settings(max_examples=300)
def test_anyDocument(writer: Writer) -> None:
    """Each key that is read has its place, and no other; that is where it was written."""
    tree = tomllib.loads(writer.text)
    found = keysOf(writer.text)
    assert set(found) == set(keysIn(tree)), writer.text
    assert found == writer.at(), writer.text


@given(st.text() | st.text("[]{}\"'=.,#\n\r\\ab "))
@example('"""')
@example("a = [")
@example("[[")
@example('a."\n')
@settings(max_examples=300)
def test_anyText(text: str) -> None:
    """It comes to an end with whatever it is given; of what tomllib reads it leaves nothing out."""
    found = keysOf(text)
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError):
        return
    assert set(found) == set(keysIn(tree))


@pytest.mark.parametrize(
    "before", ["", "# x = [\n\n", "freeze-limit = 9\n", "ignore = [\n'[a]'\n]\n"]
)
@pytest.mark.parametrize(
    ("key", "written", "line"),
    [
        ("containers.a.linger", 'linger = "soon"', 0),
        ("containers.a.suspend", "suspend = [\n1,\n]", 0),
        ("containers.a.lingr", '"ling\\u0072" = 1', 0),
        ("containers.a.'b c'", "'b c' = 1", 0),
        ("containers.a.channels.rpc.listen", "channels.rpc.listen = '''\n/no'''", 0),
        ("containers.a.channels.rpc.x", "channels = {rpc = {listen = '''\n''', x = 3}}", 1),
    ],
)
def test_problems(before: str, key: str, written: str, line: int, tmp_path: Path) -> None:
    """What is wrong with a key is said with the line of it, whatever there is before."""
    head = f"[containers.a]\nfreezer = 'none'\n{before}"
    file = tmp_path / "c.toml"
    file.write_text(f"{head}{written}\n")
    with pytest.raises(config.ConfigurationError) as caught:
        config.loadFile(file)
    (problem,) = [each for each in caught.value.problems if each.path == key]
    assert problem.line == head.count("\n") + 1 + line
    assert str(problem).startswith(f"{file}:{problem.line}: {key}: ")


@pytest.mark.parametrize(
    ("text", "line", "path"),
    [
        # The table that a missing key belongs to; the line that is its own comes first.
        ("[containers.a.channels.x]\nlisten = '@x'\n\n[containers.a]\n", 4, "containers.a.freezer"),
        ("[containers.a.channels.x]\nlisten = '@x'\n", 1, "containers.a.freezer"),
        ("\n[containers.'a.b']\n", 2, "containers.a.b.freezer"),
        ("\n\n[containers]\n", 3, "containers"),
        # Nothing of it is there.
        ("# nothing\n", None, "containers"),
    ],
)
def test_missing(text: str, line: int | None, path: str, tmp_path: Path) -> None:
    """What is missing is said with the line where it belongs."""
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(config.ConfigurationError) as caught:
        config.loadFile(file)
    (problem,) = [each for each in caught.value.problems if each.path == path]
    assert problem.line == line
    where = str(file) if line is None else f"{file}:{line}"
    assert str(problem).startswith(f"{where}: {path}: ")


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a = 1\nb = @\n", 2, 5),
        ("a = 1\r\nb = @\r\n", 2, 5),
        ("a = 1\na = 2\n", 2, 6),
        ("a = 1\nb = [\n1,\n\n\n", 3, None),
        ("[a\n", 1, 3),
    ],
)
def test_syntax(text: str, line: int, column: int | None, tmp_path: Path) -> None:
    """A syntax error has its line, and its column but at the end of the file; and no key."""
    file = tmp_path / "c.toml"
    file.write_bytes(text.encode())
    with pytest.raises(config.ConfigurationError) as caught:
        config.loadFile(file)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.path) == (line, column, "")
    assert str(problem).startswith(f"{file}:{line}: ")


def test_join() -> None:
    """A path is written for people as the reader writes it."""
    assert join(join("a", "b c"), "d.e") == "a.'b c'.d.e"
