"""Sphinx: `make docs`."""

from chanproxy import __version__

project = "chanproxy"
author = "the chanproxy authors"
version = release = __version__
extensions = ["myst_parser", "sphinx_copybutton"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_show_copyright = False
html_title = f"chanproxy {version}"
exclude_patterns = ["_build", "examples", "newsfragments"]
myst_heading_anchors = 3
# What is copied is what can be pasted: of a block with a prompt, the lines with one.
copybutton_prompt_text = "$ "
