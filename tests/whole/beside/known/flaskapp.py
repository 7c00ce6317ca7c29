"""A web application that says which process answers."""

from __future__ import annotations

import os

from flask import Flask

app = Flask(__name__)


@app.get("/process")
def process() -> str:
    """Its number."""
    return str(os.getpid())
