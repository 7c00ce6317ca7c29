"""
A picture that is drawn from the code: written, or compared with the one that is there.

Knows nothing of what is in it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def draw(name: str, text: str, shows: str) -> None:
    """
    The command: it writes NAME.dot and, by Graphviz's C{dot}, NAME.svg beside this file.

    With C{--check} it writes nothing, and exits with status 1 if what is there is another one.

    @param text: in the DOT language.
    @param shows: what the picture shows.
    """
    parser = argparse.ArgumentParser(description=f"Draw {shows}.")
    parser.add_argument("--check", action="store_true", help=f"only compare {name}.dot")
    parser.add_argument("--directory", type=Path, default=Path(__file__).resolve().parent)
    options = parser.parse_args()
    file = options.directory / f"{name}.dot"
    if options.check:
        if not file.exists() or file.read_text() != text:
            sys.exit(f"{file.name} does not show {shows}; run python -m {_module()}")
        return
    file.write_text(text)
    try:
        subprocess.run(["dot", "-Tsvg", "-o", file.with_suffix(".svg"), file], check=True)
    except FileNotFoundError:
        sys.exit("there is no program dot; install graphviz")


def _module() -> str:
    return f"docs.{Path(sys.argv[0]).stem}"
