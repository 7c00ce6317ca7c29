"""
A command in a cgroup of its own, which goes when the command has ended.

Knows cgroups and processes; knows nothing of freezing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import subprocess
from collections.abc import Sequence

from twisted.internet.defer import Deferred

from chanproxy.freezers.mounts import cgroupMounts, findCgroup
from chanproxy.interfaces import FreezerError, PollingReactor
from chanproxy.kernel.poller import Poller

EMPTYING = (0.01, 5.0)
"""Seconds between tries to remove a cgroup whose last process has just ended, and for how long."""


class CommandFailed(Exception):
    """The command was not started; nothing is left behind.  The text says why."""


class CommandCgroup:
    """
    A new cgroup, and one command in it.

    @ivar directory: of the cgroup.
    @ivar pid: of the command.
    """

    def __init__(self, reactor: PollingReactor, path: str, command: Sequence[str]) -> None:
        """
        Start it.

        @param path: absolute below any cgroup v2 mount, or relative to the first one.
        @raise CommandFailed: the cgroup is there already, or one of both cannot be made.
        """
        try:
            self.directory = findCgroup(path, cgroupMounts())[0]
            os.mkdir(self.directory)
        except FreezerError as error:
            raise CommandFailed(str(error)) from error
        except OSError as error:
            hint = "; choose another name" if error.errno == errno.EEXIST else ""
            raise CommandFailed(f"{path}: {error.strerror}{hint}") from error
        try:
            self._process = self._spawn(command)
        except (OSError, subprocess.SubprocessError) as error:
            os.rmdir(self.directory)
            raise CommandFailed(f"{command[0]}: {getattr(error, 'strerror', error)}") from error
        self._reactor = reactor
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._poller = Poller(reactor)
        self._poller.watch(self._pidfd, select.EPOLLIN, self._ended)
        self._waiting: list[Deferred[int]] = []

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        procs = os.open(os.path.join(self.directory, "cgroup.procs"), os.O_WRONLY)
        try:
            # Between fork and exec, so that nothing of the program starts outside.
            return subprocess.Popen(
                command, preexec_fn=lambda: os.write(procs, b"0") and None, close_fds=True
            )
        finally:
            os.close(procs)

    def whenEnded(self) -> Deferred[int]:
        """
        Fires when the command has ended, with its exit status as a shell gives it: 128 and the
        signal, if that ended it.
        """
        result: Deferred[int] = Deferred()
        status = self._process.poll()
        if status is None:
            self._waiting.append(result)
        else:
            result.callback(_shellStatus(status))
        return result

    def signal(self, number: int) -> None:
        """Send the command a signal; harmless when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _ended(self, events: int) -> None:
        self._poller.unwatch(self._pidfd)
        os.close(self._pidfd)
        status = _shellStatus(self._process.wait())
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(status)

    def remove(self) -> Deferred[bool]:
        """
        Remove the cgroup, once it is thawed and the command has ended.

        @return: fires with False when processes that the command left behind are still in it; they
            are not touched.
        """
        result: Deferred[bool] = Deferred()
        end = self._reactor.seconds() + EMPTYING[1]

        def again() -> None:
            try:
                os.rmdir(self.directory)
            except FileNotFoundError:
                result.callback(True)
            except OSError:
                # A process that has ended leaves its cgroup a moment later.
                if self._reactor.seconds() < end and not self._populated():
                    self._reactor.callLater(EMPTYING[0], again)
                else:
                    result.callback(False)
            else:
                result.callback(True)

        again()
        return result

    def _populated(self) -> bool:
        try:
            with open(os.path.join(self.directory, "cgroup.procs")) as file:
                return bool(file.read())
        except OSError:
            return False


def _shellStatus(status: int) -> int:
    return 128 - status if status < 0 else status
