"""The built site: its pages fit on a phone, its links lead somewhere, its picture is drawn."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.places import DOCS, ROOT
from tests.shared.browser import Browser

pytestmark = pytest.mark.lasts(60)

PATIENCE = 300.0

BUILDERS = ("sphinx", "furo", "myst_parser", "sphinx_copybutton")

built = pytest.mark.skipif(
    not all(map(find_spec, BUILDERS)), reason="there is no Sphinx with all that; see make docs"
)

NARROW = 320
"""As wide as the narrowest phone, in pixels."""

WIDER = """
(() => {
    const wide = document.documentElement.clientWidth
    const scrolls = e => e.tagName != "ARTICLE"
        && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement))
    return [...document.querySelectorAll("article *")]
        .filter(e => e.getClientRects().length)
        .filter(e => e.getBoundingClientRect().right > wide + 1 && !scrolls(e.parentElement))
        .map(e => e.tagName + ": " + e.textContent.slice(0, 60))
})()
"""
"""What is wider than the screen, and in nothing that scrolls by itself."""


SCROLLING = """
[...document.querySelectorAll(".table-wrapper")].filter(e => e.scrollWidth > e.clientWidth).length
"""
"""How many tables scroll."""


def python(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python in the checkout, to its end."""
    argv = [sys.executable, *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, without the API reference, which takes a minute."""
    site = tmp_path_factory.mktemp("site")
    done = python("-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", DOCS, site)
    assert done.returncode == 0, done.stderr
    return site


@built
def test_narrow(site: Path, tmp_path: Path) -> None:
    """No page is wider than a phone; what is, scrolls by itself; each can be copied from."""
    pages = sorted(page for page in site.glob("*.html"))
    assert len(pages) > 25
    wide, copied, scrolling = {}, 0, 0
    with Browser(tmp_path) as browser:
        browser.shape(NARROW, 640)
        for page in pages:
            browser.go(page.as_uri())
            browser.until(
                f"location.href == '{page.as_uri()}' && document.readyState == 'complete'"
            )
            found = browser.value(WIDER)
            if found:
                wide[page.name] = found
            if browser.value("!!document.querySelector('div.highlight')"):
                browser.until("document.querySelector('div.highlight button.copybtn')")
                copied += 1
            scrolling += browser.value(SCROLLING)
        assert browser.complaints() == []
    assert wide == {}
    assert copied > 15
    # Their columns are as wide as words are.
    assert scrolling > 30


@built
def test_links(site: Path) -> None:
    """Links lead somewhere, on the pages and in the files beside the package."""
    done = python("-m", "docs.links", site, *sorted(ROOT.glob("*.md")))
    lines = done.stderr.splitlines()
    # The reference is not there.
    assert [line for line in lines[:-1] if ": api/" not in line] == []
    assert any(": api/index.html: there is no such file" in line for line in lines)


@built
def test_deadLinks(tmp_path: Path) -> None:
    """What leads nowhere is named, in HTML and in Markdown; what leads elsewhere is not asked."""
    (tmp_path / "a page.html").write_text(
        '<h1 id="here"></h1><a href="#here"></a><a href="a%20page.html#here"></a>'
        '<a href="https://example.invalid/x"></a><a href="mailto:a@example.invalid"></a>'
        '<a href="#there"></a><a href="gone.html"></a><img src="gone.png">'
    )
    other = tmp_path / "OTHER.md"
    other.write_text("# Two words\n[x](#two-words) [x](#no-words) [x](gone.md) ![x](gone.svg)\n")
    done = python("-m", "docs.links", tmp_path, other)
    assert done.returncode == 1
    said = [line.split(": ", 1)[1] for line in done.stderr.splitlines()[:-1]]
    assert said == [
        "#there: a page.html has no place of that name",
        "gone.html: there is no such file",
        "gone.png: there is no such file",
        "#no-words: OTHER.md has no place of that name",
        "gone.md: there is no such file",
        "gone.svg: there is no such file",
    ]
    assert done.stderr.endswith("6 links lead nowhere\n")


def test_ways(tmp_path: Path) -> None:
    """The picture of the two ways is what draws it, in both looks; another is a sentence."""
    same = python("-m", "docs.draw_ways", "--check")
    assert (same.returncode, same.stderr) == (0, "")
    for name in ("ways-light.svg", "ways-dark.svg"):
        (tmp_path / name).write_text((DOCS / name).read_text())
    (tmp_path / "ways-dark.svg").write_text("<svg/>")
    other = python("-m", "docs.draw_ways", "--check", "--directory", tmp_path)
    assert other.returncode == 1
    assert other.stderr.startswith("ways-dark.svg is not what draw_ways.py draws")
