"""
A service by HTTP, as it is by its control socket: the same calls, answers and refusals.

Knows which resource a call is.  Loaded only with a URL.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any
from urllib.parse import quote

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from chanproxy.commands.asked import NOT_OURS, PATIENCE, Pending, Service
from chanproxy.commands.rows import SLEEPS
from chanproxy.commands.web import LARGEST, Got, Web
from chanproxy.commands.where import Url
from chanproxy.guest import GuestError, ServiceGone
from chanproxy.guest._errors import refusal
from chanproxy.manager.http.doors import readToken

SLOW = 60.0
"""Seconds, for a container to wake."""


@frozen
class Way:
    """
    How a call is made.

    @ivar answers: what is in its answer.
    @ivar patience: seconds until that; None: any number.
    """

    verb: str
    path: str
    answers: tuple[str, ...] = ()
    patience: float | None = PATIENCE


WAYS = {
    "ListContainers": Way("GET", "/containers", ("containers", "now")),
    "Describe": Way("GET", "/containers/{container}", ("description",)),
    "SuspendContainer": Way(
        "POST", "/containers/{container}/suspend", ("suspend_time", "resume_reasons"), None
    ),
    "ResumeContainer": Way("POST", "/containers/{container}/resume", patience=SLOW),
    "PauseContainer": Way("POST", "/containers/{container}/pause", patience=SLOW),
    "UnpauseContainer": Way("POST", "/containers/{container}/unpause", ("paused",), patience=SLOW),
}
"""By the manager's methods."""


class RemoteService(Service):
    """One that may be of another machine."""

    standing = False

    def __init__(self, url: Url, tokenFile: str | None, patience: float = PATIENCE) -> None:
        """
        @param tokenFile: not read for a path, by which the kernel says who asks.
        @param patience: seconds to wait for an answer.
        @raise ValueError: there is no token in that file.
        """
        super().__init__(url.text)
        self._tokenFile = None if url.path else tokenFile
        token = readToken(self._tokenFile) if self._tokenFile else None
        self._patience = patience
        self.web = Web(url, token, patience)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.web.wait(self.ask, method, parameters, self._patience)

    def begin(self, method: str, more: bool = False, **parameters: Any) -> Pending:
        if more:
            return _Watch(self, parameters["container"])
        return _Call(self, method, parameters)

    def close(self) -> None:
        self.web.close()

    def ask(
        self, method: str, parameters: Mapping[str, Any], patience: float | None
    ) -> Deferred[dict[str, Any]]:
        """Make a call; in the reactor's thread."""
        way = WAYS[method]
        given = {key: value for key, value in parameters.items() if value is not None}
        path = way.path.format(container=quote(given.pop("container", ""), safe=""))
        if way.verb == "GET":
            # True is true there.
            given = {key: json.dumps(value) for key, value in given.items()}
        asked = self.web.ask(way.verb, path, given, patience)
        return asked.addCallback(self.read, way.answers)

    def read(self, got: Got, answers: tuple[str, ...]) -> dict[str, Any]:
        """
        An answer.

        @param answers: what has to be in it.
        @raise CallRefused: it is an error.
        @raise ServiceGone: it is none of a service.
        """
        try:
            found = json.loads(got.body)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and got.status == 200 and all(map(found.__contains__, answers)):
            return found
        if isinstance(found, dict) and got.status >= 400:
            error, parameters = found.get("error"), found.get("parameters")
            if isinstance(error, str) and isinstance(parameters, dict):
                if got.status == 401:
                    parameters = {**parameters, "message": self._noToken()}
                raise refusal(error, parameters)
        leads = f", which leads to {got.leads}" if got.leads else ""
        what = f"{NOT_OURS} ({got.status} {got.phrase}{leads})"
        raise ServiceGone(self.web.sentence(what))

    def _noToken(self) -> str:
        if self._tokenFile is None:
            return f"{self.place} wants a token; give --token-file, or set CHANPROXY_TOKEN_FILE"
        return (
            f"{self.place} does not know the token in {self._tokenFile}; "
            "write into it what is in the service's http-token-file"
        )


class _Pending(Pending):
    """Answers that come in the reactor's thread, for another one."""

    def __init__(self, service: RemoteService) -> None:
        self._service = service
        self._came: SimpleQueue[dict[str, Any] | BaseException] = SimpleQueue()
        # One for each that is there.
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        self._asked: Deferred[Any] | None = None

    def _start(self, asked: Deferred[Any]) -> Deferred[None]:
        self._asked = asked
        asked.addErrback(self._failed)
        return succeed(None)

    def _tell(self, answer: dict[str, Any] | BaseException) -> None:
        if self._bell >= 0:
            os.eventfd_write(self._bell, 1)
            self._came.put(answer)

    def _failed(self, failure: Failure) -> None:
        self._tell(failure.value or ServiceGone(failure.getErrorMessage()))

    def fileno(self) -> int:
        return self._bell

    def answer(self) -> dict[str, Any]:
        if self._bell < 0:
            raise GuestError("nobody waits for this answer any more")
        came = self._came.get()
        os.eventfd_read(self._bell)
        if isinstance(came, BaseException):
            raise came
        return came

    def close(self) -> None:
        if self._bell >= 0:
            self._service.web.wait(self._stop)

    def _stop(self) -> Deferred[None]:
        bell, self._bell = self._bell, -1
        os.close(bell)
        if self._asked is not None:
            self._asked.cancel()
        return succeed(None)


class _Call(_Pending):
    """One answer."""

    def __init__(self, service: RemoteService, method: str, parameters: dict[str, Any]) -> None:
        super().__init__(service)
        service.web.wait(self._begin, method, parameters)

    def _begin(self, method: str, parameters: dict[str, Any]) -> Deferred[None]:
        asked = self._service.ask(method, parameters, WAYS[method].patience)
        return self._start(asked.addCallback(self._tell))


class _Watch(_Pending):
    """
    The state of a container, C{asleep} or C{awake}, then each change of it with its reasons: as
    C{RegisterWakeWatcher} answers, made of the stream of events.
    """

    def __init__(self, service: RemoteService, name: str) -> None:
        super().__init__(service)
        self._name = name
        self._state = ""
        self._read = b""
        service.web.wait(self._begin)

    def _begin(self) -> Deferred[None]:
        asked = self._service.web.listen(
            "/events", {"container": self._name}, self._heard, PATIENCE
        )
        # What is no stream is a refusal, or not ours.
        return self._start(asked.addCallback(self._service.read, ("stream",)))

    def _heard(self, data: bytes) -> None:
        *events, self._read = (self._read + data).split(b"\n\n")
        if len(self._read) > LARGEST:
            raise ServiceGone(self._service.web.sentence(NOT_OURS))
        for each in events:
            lines = (line.partition(b": ") for line in each.split(b"\n"))
            fields = {bytes(name): value for name, _, value in lines}
            try:
                self._happened(fields.get(b"event", b""), json.loads(fields.get(b"data", b"{}")))
            except (ValueError, LookupError, TypeError) as error:
                raise ServiceGone(self._service.web.sentence(NOT_OURS)) from error

    def _happened(self, kind: bytes, found: dict[str, Any]) -> None:
        if kind == b"containers":
            states = {each["name"]: each["state"] for each in found["containers"]}
            if self._name not in states:
                text = {"message": f"{self._name} has gone meanwhile"}
                raise refusal("ContainerNotFound", text)
            if not self._state:
                self._changed("asleep" if states[self._name] in SLEEPS else "awake", [])
        elif kind == b"state" and found["state"] in ("asleep", "awake"):
            self._changed(found["state"], found["reasons"])

    def _changed(self, state: str, reasons: list[str]) -> None:
        if state != self._state:
            self._state = state
            self._tell({"state": state, "reasons": reasons})
