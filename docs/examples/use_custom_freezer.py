"""Suspends a process of its own by the freezer of custom_freezer.py."""

import os
import subprocess
import sys

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from chanproxy import config
from chanproxy.service import ChanproxyService


def state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(") ")[2][0]


async def use(reactor: IReactorTime) -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    configuration = config.load(
        f'[containers.sleeper]\nfreezer = "pid:{sleeper.pid}"\nsuspend = "manual"\n'
    )
    service = ChanproxyService(configuration, reactor)
    service.startService()
    try:
        container = service.containers["sleeper"]
        suspended = container.suspend(timeout=0.1)
        # A signal is on its way for a moment.
        while state(sleeper.pid) != "T":
            assert container.suspension.state == "asleep"
        resumed = await suspended
        while state(sleeper.pid) == "T":
            pass
        print(f"asleep for {resumed.asleep / 1e9:.1f} s, until the {resumed.reason}")
        print("as expected" if resumed.reason == "timeout" else "something else")
    finally:
        await service.stopService()
        sleeper.kill()
        sleeper.wait()


if __name__ == "__main__":
    os.environ["CHANPROXY_RUNTIME_DIRECTORY"] = sys.argv[1]
    react(lambda reactor: Deferred.fromCoroutine(use(reactor)))
