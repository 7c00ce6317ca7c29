"""
The quick tests under each Python that is here, with the oldest and the newest packages.

C{make versions}.  The oldest are those that pyproject.toml admits: it must not promise more than is
tried here.
"""

from __future__ import annotations

import nox

nox.options.envdir = "build/nox"

PYTHONS = ("3.11", "3.12", "3.13", "3.14")

TOOLS = ("hypothesis", "perfetto", "pytest", "twisted", "varlink", "vermin")
"""What quick tests need of what all tests need; the rest are programs in containers."""

PACKAGES = [nox.param(each, id=each) for each in ("oldest", "newest")]


@nox.session(python=PYTHONS)
@nox.parametrize("packages", PACKAGES)
def quick(session: nox.Session, packages: str) -> None:
    """See C{tests/quick.py}."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    tools = [each for each in project["optional-dependencies"]["test"] if each.startswith(TOOLS)]
    oldest = [each.replace(">=", "==") for each in project["dependencies"]]
    session.install("-e", ".", *tools, *(oldest if packages == "oldest" else ()))
    files = session.run("python", "-m", "tests.quick", silent=True)
    session.run("python", "-m", "pytest", "-q", *session.posargs, *str(files).split())
