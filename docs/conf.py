"""Sphinx: `make docs`."""

from chanproxy import __version__

project = "chanproxy"
author = "the chanproxy authors"
version = release = __version__
extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"chanproxy {version}"
exclude_patterns = ["_build", "examples", "newsfragments"]
myst_heading_anchors = 3
