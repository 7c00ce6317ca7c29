"""Jobs of APScheduler in the background of a server."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

from apscheduler.schedulers.background import (  # type: ignore[import-untyped]  # no annotations
    BackgroundScheduler,
)


def say(name: str) -> Callable[[], None]:
    """A job that says a number, each time the next one."""
    numbers = itertools.count(1)
    return lambda: print(name, next(numbers), flush=True)


# By default it leaves out a run that is a second late, which a busy machine may be.
scheduler = BackgroundScheduler(job_defaults={"misfire_grace_time": 5})
print("begun", flush=True)
scheduler.add_job(say("seven"), "interval", seconds=7)
scheduler.add_job(say("seventeen"), "interval", seconds=17)
scheduler.start()
HTTPServer(("127.0.0.1", int(sys.argv[1])), BaseHTTPRequestHandler).serve_forever()
