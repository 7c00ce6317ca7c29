"""
C{chanproxy suspend} and C{chanproxy resume}: have a container sleep, and wake it.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import click

from chanproxy.commands.asked import PATIENCE, Pending, Service, answered
from chanproxy.commands.asking import REFUSED, asking, containerArgument, fail, jsonOption
from chanproxy.commands.reasons import byCommand
from chanproxy.commands.showing import duration, jsonLine
from chanproxy.commands.where import Where, whereOptions
from chanproxy.guest import AlreadySuspended, SuspendFailure, WakeLocksExist
from chanproxy.words import listed, safe

AGAIN = 0.05
"""Seconds until the next try, when somebody else just suspends or wakes it."""


class _Sleep:
    """One container is to sleep; and who asks hears of it."""

    def __init__(self, service: Service, name: str, timeout: float | None) -> None:
        self._service = service
        self._name = name
        self._timeout = timeout
        self._watching = service.begin("RegisterWakeWatcher", more=True, container=name)

    def close(self) -> None:
        """Hear no more; it sleeps on."""
        self._watching.close()

    def begin(self, wait: bool) -> dict[str, Any] | None:
        """
        Suspend it.

        @param wait: until it is awake again.
        @return: what the service says about its sleep, if that is over; None: it sleeps.
        @raise GuestError: it does not sleep.
        """
        # The present state, or the refusal if there is no such container.
        state = self._watching.answer()["state"]
        deadline = time.monotonic() + PATIENCE
        while True:
            while answered([self._watching], 0):
                state = self._watching.answer()["state"]
            asked = self._service.begin(
                "SuspendContainer", container=self._name, timeout=self._timeout
            )
            with closing(asked):
                try:
                    return self._first(asked, state, wait)
                except AlreadySuspended as error:
                    slept = error.parameters.get("state") == "asleep"
                    if slept and self._timeout is None:
                        return self._untilAwake() if wait else None
                    if slept or time.monotonic() > deadline:
                        raise
            time.sleep(AGAIN)

    def _first(self, asked: Pending, state: str, wait: bool) -> dict[str, Any] | None:
        """What comes first: the end of the suspend, or word that it sleeps."""
        waiting = [asked] if wait else [asked, self._watching]
        while True:
            ready = answered(waiting)
            if asked in ready:
                return asked.answer()
            before, state = state, self._watching.answer()["state"]
            if state == "asleep" != before:
                return None

    def _untilAwake(self) -> dict[str, Any]:
        began = time.monotonic()
        while True:
            change = self._watching.answer()
            if change["state"] == "awake":
                slept = int((time.monotonic() - began) * 1e9)
                return {"suspend_time": slept, "resume_reasons": change["reasons"]}


@click.command("suspend")
@whereOptions
@jsonOption
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wake it then.")
@click.option("--wait", is_flag=True, help="Wait until it is awake again, and say what woke it.")
@containerArgument
def suspend(where: Where, asJson: bool, timeout: float | None, wait: bool, name: str) -> None:
    """
    Have the container NAME sleep until something wakes it.

    Returns when it is asleep; it sleeps on.  If something keeps it awake, that is said, and the
    exit status is 1.
    """
    with asking(where, name) as service:
        try:
            with closing(_Sleep(service, name, timeout)) as sleep:
                slept = sleep.begin(wait)
        except (WakeLocksExist, SuspendFailure) as error:
            fail(f"{name} is not suspended: {error}", REFUSED)
        except AlreadySuspended as error:
            fail(_already(name, error, timeout), REFUSED)
    if slept is None:
        state: dict[str, Any] = {"state": "asleep"}
        text = "is asleep"
    else:
        # Also without --wait, if that came before it could be said that it sleeps.
        seconds, reasons = slept["suspend_time"] / 1e9, slept["resume_reasons"]
        state = {"state": "awake", "asleep_seconds": seconds, "reasons": reasons}
        text = f"is awake; it slept for {duration(seconds)}, and was woken by {listed(reasons)}"
    if asJson:
        jsonLine({"name": name, **state})
    else:
        click.echo(safe(f"{name} {text}"))


def _already(name: str, error: AlreadySuspended, timeout: float | None) -> str:
    state = error.parameters.get("state", "asleep")
    if state == "asleep" and timeout is not None:
        return f"{name} sleeps already, without that time limit; wake it first: chanproxy resume"
    return f"{name} is {state}, and stays so; try again later"


@click.command("resume")
@whereOptions
@jsonOption
@click.option("--reason", metavar="TEXT", help="What is said about what woke it.")
@containerArgument
def resume(where: Where, asJson: bool, reason: str | None, name: str) -> None:
    """
    Wake the container NAME.

    Returns when it is awake.  It may sleep again as soon as it is idle: see chanproxy hold for
    what keeps it awake.
    """
    said = reason or byCommand("resume")
    with (
        asking(where, name) as service,
        closing(service.begin("ResumeContainer", container=name, reason=said)) as resuming,
    ):
        resuming.answer()
    if asJson:
        jsonLine({"name": name, "state": "awake"})
    else:
        click.echo(safe(f"{name} is awake"))
