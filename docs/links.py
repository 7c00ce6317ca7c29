"""
Whether each link inside of the site leads somewhere: a file, and a place in it.

C{python -m docs.links SITE FILE...} takes the built site, and files of Markdown that are read where
they lie, as README.md; it prints what leads nowhere, and exits with status 1.  Sphinx knows only of
the links that it has made by itself.  The pages of the API reference are led to, and not read:
whether docstrings lead somewhere is known to pydoctor.  Other sites are not asked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin

REFERENCE = "api"
"""Where it is in the site."""


class Page(HTMLParser):
    """
    What a page has.

    @ivar links: where it leads, as it is written there.
    @ivar places: what can stand behind a C{#}.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """One element begins."""
        for name, value in attributes:
            if value and (name in ("href", "src")):
                self.links.append(value)
            elif value and (name == "id" or (tag, name) == ("a", "name")):
                self.places.add(value)


@cache
def pageOf(file: Path) -> Page:
    """
    A page of HTML, or of Markdown with the headings' places as forges have them.

    @raise OSError: it cannot be read.
    """
    text = file.read_text(errors="replace")
    if file.suffix == ".md":
        reader = MarkdownIt("commonmark").enable("table").use(anchors_plugin, max_level=6)
        text = reader.render(text)
    return Page(text)


def whyNot(file: Path, link: str) -> str:
    """
    Why a link leads nowhere; empty, if it leads somewhere, or to another site.

    @param file: the page that has it.
    """
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return ""
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file.resolve()
    if target.is_dir() and file.suffix == ".html":
        target /= "index.html"
    if not target.exists():
        return "there is no such file"
    place = unquote(parts.fragment)
    if place and target.suffix in (".html", ".md") and place not in pageOf(target).places:
        return f"{target.name} has no place of that name"
    return ""


def dead(files: list[Path]) -> Iterator[str]:
    """A line for each link in these files that leads nowhere."""
    for file in files:
        for link in dict.fromkeys(pageOf(file).links):
            why = whyNot(file, link)
            if why:
                yield f"{file}: {link}: {why}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Look for links that lead nowhere.")
    parser.add_argument("site", type=Path, help="the built site, a directory")
    parser.add_argument("files", type=Path, nargs="*", help="files of Markdown")
    options = parser.parse_args()
    reference = options.site / REFERENCE
    pages = [p for p in sorted(options.site.rglob("*.html")) if reference not in p.parents]
    if not pages:
        sys.exit(f"{options.site}: there are no pages; build it first, by make docs")
    found = list(dead([*pages, *options.files]))
    if found:
        sys.exit("\n".join([*found, f"{len(found)} links lead nowhere"]))


if __name__ == "__main__":
    main()
