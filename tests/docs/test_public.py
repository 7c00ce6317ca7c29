"""What is public: what rooms offer, the page about the library, and the API reference agree."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest
from twisted.python.reflect import namedAny

from support.rooms import PACKAGE

ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))

ROOT = PACKAGE.parent

PAGE = (ROOT / "docs" / "api.md").read_text()

REFERENCE = """
import json
from pydoctor.driver import get_system
from pydoctor.options import Options
shown = get_system(Options.from_args([])).allobjects.items()
print(json.dumps({name: bool(each.docstring) for name, each in shown if each.isVisible}))
"""


def public(room: str) -> dict[str, object]:
    """What a room offers, by its names."""
    module = importlib.import_module(f"chanproxy.{room}")
    return {name: namedAny(f"{module.__name__}.{name}") for name in module.__all__}


@pytest.mark.parametrize("room", ROOMS)
def test_there(room: str) -> None:
    """What a room offers is there, and nothing private is among it; another name is an error."""
    names = public(room)
    assert not [name for name in names if name.startswith("_")]
    module = importlib.import_module(f"chanproxy.{room}")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.skipif(find_spec("pydoctor") is None, reason="there is no pydoctor; see make docs")
def test_reference() -> None:
    """Each name is in the API reference under its room, with a docstring."""
    done = subprocess.run(
        [sys.executable, "-c", REFERENCE], cwd=ROOT, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    documented = json.loads(done.stdout.splitlines()[-1])
    assert len(documented) > 1000
    for room in ROOMS:
        for name in public(room):
            assert documented.get(f"chanproxy.{room}.{name}"), f"{room}: {name}"


def test_page() -> None:
    """What the page about the library names is offered by some room, and whole names lead there."""
    offered = [each for room in ROOMS for each in public(room).items()]
    # Modules are offered with all that is in them.
    inside = [value for _, value in offered if isinstance(value, ModuleType)]
    words = set(re.findall(r"`([A-Z]\w+)(?:\.\w+)?`", PAGE))
    assert len(words) > 5
    assert words <= {name for name, _ in offered}
    whole = set(re.findall(r"`(chanproxy\.[\w.]+)`", PAGE))
    assert len(whole) > 4
    for name in whole:
        found = namedAny(name)
        home = sys.modules.get(getattr(found, "__module__", ""))
        room = isinstance(found, ModuleType) and name.count(".") == 1
        assert room or home in inside or found in [value for _, value in offered], name


def test_examples() -> None:
    """What other programs are shown to import is offered."""
    files = [*(ROOT / "docs" / "examples").glob("*.py"), *(ROOT / "docs").glob("*.md")]
    text = "\n".join(file.read_text() for file in files)
    imports = r"^ *from chanproxy\.(\w+)(?:\.(\w+))? import ([\w, ]+)$"
    shown = re.findall(imports, text, re.MULTILINE)
    assert len(shown) > 10
    for room, module, names in shown:
        offers = public(room)
        inside = offers.get(module)
        for name in names.split(", "):
            assert name in offers or hasattr(inside, name) or room == "guest", f"{room}: {name}"
