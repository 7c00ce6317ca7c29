"""
Asking a running service: how all commands connect that do, what they have in common, and the exit
status when there is no answer.

Blocking, by the connection that guests have; knows nothing of what is shown.
"""

from __future__ import annotations

import contextlib
import select
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import TextIOWrapper
from types import TracebackType
from typing import Any, NoReturn, Self

import click

from chanproxy.commands.call import defaultSocket
from chanproxy.guest import CallRefused, Guest, GuestError, ServiceGone
from chanproxy.guest._wire import Connection, closeAll
from chanproxy.words import brief, meant, safe

REFUSED, NO_SERVICE = 1, 3
"""Exit statuses: the service says no, or knows no such container; there is none that answers."""

PATIENCE = 10.0
"""Seconds to wait for an answer that does not depend on what a container does."""

COMPLETING = 1.0
"""The same, for somebody who has pressed a key."""


_UNKNOWN = ("ContainerNotFound", "PermissionDenied", "InvalidParameter")
"""What the manager says of a container that is not there, or has no such name as one can have."""


def fail(text: str, status: int) -> NoReturn:
    """Say what is wrong, and exit."""
    click.echo(safe(f"chanproxy: {text}"), err=True)
    sys.exit(status)


class Pending:
    """A call that is not answered yet, or again and again; on a connection of its own."""

    def __init__(
        self, path: str, method: str, parameters: Mapping[str, Any], more: bool = False
    ) -> None:
        """
        Make the call.

        @param more: there may be any number of answers.
        @raise ServiceGone: there is no service.
        """
        self._connection = Connection(path, PATIENCE)
        try:
            self._connection.wait(None)
            self._connection.send(method, parameters, (), more)
        except BaseException:
            self._connection.close()
            raise

    def fileno(self) -> int:
        """Readable when there is an answer."""
        return self._connection.fileno()

    def answer(self) -> dict[str, Any]:
        """
        Wait for the next one.

        @raise GuestError: it is an error, or the service has gone.
        """
        parameters, descriptors = self._connection.receive()
        closeAll(descriptors)
        return parameters

    def close(self) -> None:
        """Wait no more; what was asked for is done all the same.  Idempotent."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def answered(waiting: Iterable[Pending], timeout: float | None = None) -> list[Pending]:
    """Those that have an answer; waits until there is one, or so many seconds."""
    known = {each.fileno(): each for each in waiting}
    poller = select.poll()
    for descriptor in known:
        poller.register(descriptor, select.POLLIN)
    ready = poller.poll(None if timeout is None else max(timeout * 1000, 0))
    return [known[descriptor] for descriptor, _ in ready]


class Service:
    """
    One that runs, as those see it who ask it.

    Connects with the first call, and anew after it has gone; each method raises L{GuestError}.

    @ivar path: its control socket.
    """

    def __init__(self, path: str | None = None, patience: float = PATIENCE) -> None:
        """
        @param path: None: where it is by default.
        @param patience: seconds to wait for an answer.
        """
        self.path = path or defaultSocket()
        # Its calls are about other containers: this name is never sent.
        self._guest = Guest("-", self.path, patience)

    def containers(self) -> tuple[list[dict[str, Any]], int]:
        """
        Each container, with what it does.

        @return: entries as C{ListContainers} gives them, and the time: nanoseconds
            (C{CLOCK_BOOTTIME}).
        """
        found: list[dict[str, Any]] = []
        parameters: dict[str, Any] = {"container": None, "details": True}
        while True:
            answer = self._guest.call("ListContainers", parameters)
            found += answer["containers"]
            parameters["first_container"] = answer.get("next_container")
            if parameters["first_container"] is None:
                return found, answer["now"]

    def some(self, names: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
        """
        As L{containers}, those of some names; of all, if there is none.

        @raise NoSuchContainer: there is none of such a name.
        """
        found, now = self.containers()
        known = [each["name"] for each in found]
        for name in names:
            if name not in known:
                raise NoSuchContainer(name, known)
        return [each for each in found if not names or each["name"] in names], now

    def describe(self, name: str) -> dict[str, Any]:
        """What C{Describe} says of one, with all its sources."""
        self._guest.container = name
        return self._guest.describe()

    def described(self, names: Iterable[str]) -> Iterator[dict[str, Any]]:
        """As L{describe}, one after the other; without those that have gone meanwhile."""
        for name in names:
            try:
                description = self.describe(name)
            except CallRefused as error:
                if error.error != "ContainerNotFound":
                    raise
            else:
                yield description

    def begin(self, method: str, more: bool = False, **parameters: Any) -> Pending:
        """Make a call whose answer may take its time."""
        return Pending(self.path, method, parameters, more)

    def close(self) -> None:
        """Disconnect.  Idempotent."""
        self._guest.close()

    def sentence(self, error: CallRefused, name: str | None) -> str:
        """
        What to say about a refusal.

        @param name: the container that it is about; None: of none, or of several.
        """
        if name is not None and error.error in _UNKNOWN:
            # Whoever has access to some is not told which others there are.
            with contextlib.suppress(GuestError):
                known = [each["name"] for each in self.containers()[0]]
                if name not in known and (known or error.error != "PermissionDenied"):
                    return str(NoSuchContainer(name, known))
        return str(error)


class NoSuchContainer(Exception):
    """There is no container of a name; the text says which one may be meant."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        hint = meant(name, known) if known else "the service has none at all"
        super().__init__(f"there is no container {brief(name)}; {hint}")


@contextlib.contextmanager
def asking(
    path: str | None, name: str | None = None, patience: float = PATIENCE
) -> Iterator[Service]:
    """
    Ask a service; exits with a sentence when it does not answer, or says no.

    @param path: what C{--socket} says.
    @param name: the container that it is about, if it is one.
    @param patience: see L{Service}.
    """
    service = Service(path, patience)
    if isinstance(sys.stdout, TextIOWrapper):
        # Names may have letters that a terminal has not.
        sys.stdout.reconfigure(errors="replace")
    try:
        yield service
    except NoSuchContainer as error:
        fail(str(error), REFUSED)
    except CallRefused as error:
        fail(service.sentence(error, name), REFUSED)
    except ServiceGone as error:
        fail(str(error), NO_SERVICE)
    except KeyboardInterrupt:
        # As a shell has it of a program that SIGINT ends; click would say that it aborts.
        sys.exit(130)
    finally:
        service.close()


def containerNames(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """For the completion of a shell: names that begin so; none when nobody answers."""
    given = context.params.get(parameter.name or "") or ()
    try:
        found, _ = Service(context.params.get("path"), COMPLETING).containers()
    except (GuestError, OSError):
        return []
    names = (each["name"] for each in found)
    return [name for name in names if name.startswith(incomplete) and name not in given]


socketOption = click.option("--socket", "path", metavar="PATH", help="The control socket.")
jsonOption = click.option("--json", "asJson", is_flag=True, help="Print lines of JSON.")
containerArgument = click.argument("name", shell_complete=containerNames)
containersArgument = click.argument(
    "names", metavar="[NAME]...", nargs=-1, shell_complete=containerNames
)
