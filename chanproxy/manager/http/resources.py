"""
The resources: each a path, a verb, and the manager's method that it stands for.

One table; what is served and what is described are made from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from chanproxy.container import Container
from chanproxy.manager.attached import Handed
from chanproxy.manager.caller import LONGEST, Caller, Reply
from chanproxy.manager.dispatch import Manager
from chanproxy.manager.errors import (
    MANAGER,
    CallMalformed,
    InternalError,
    InvalidParameter,
    LimitExceeded,
    VarlinkError,
)
from chanproxy.manager.http.doors import LOOKS_ONLY, Peer, expectOwnSite, expectRight
from chanproxy.manager.http.errors import HttpError
from chanproxy.manager.http.events import Feed, Stream
from chanproxy.manager.http.server import HttpRequest
from chanproxy.manager.refusals import notNow
from chanproxy.manager.varlink import Call, readObject
from chanproxy.words import brief, meant

if TYPE_CHECKING:
    from chanproxy.manager.http.metrics import Metrics

Schema = Mapping[str, Any]

TIMEOUT: Schema = {"type": "number", "minimum": 0, "maximum": LONGEST}
NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 1024}


@frozen
class Operation:
    """
    One thing that can be asked for.

    @ivar summary: what it is for, for people.
    @ivar method: of the manager's, if it is one.
    @ivar answers: the name of the schema of its answer.
    @ivar fields: what it takes, beside the container: in the query of a GET, else in the body.
    @ivar required: of these, by name.
    @ivar kind: of the answer.
    @ivar public: it says nothing of this service, and is for everybody.
    """

    verb: str
    path: str
    summary: str
    method: str = ""
    answers: str = ""
    fields: Mapping[str, Schema] = {}
    required: tuple[str, ...] = ()
    kind: str = "application/json"
    public: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        """Which paths it is."""
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.path))


_ONE = "/containers/{container}"

OPERATIONS = (
    Operation(
        "GET",
        "/containers",
        "All containers, and their states; with details, also what each does, and why.",
        "ListContainers",
        "List",
        {"details": {"type": "boolean"}},
    ),
    Operation(
        "GET",
        _ONE,
        "What a container does, and why.",
        "Describe",
        "Description",
        {"first_source": {"type": "integer", "minimum": 0, "maximum": 2**31}},
    ),
    Operation(
        "GET", f"{_ONE}/statistics", "How its suspends went so far.", "Describe", "Statistics"
    ),
    Operation(
        "POST",
        f"{_ONE}/suspend",
        "Suspend it; answered after the resume.",
        "SuspendContainer",
        "Suspended",
        {"timeout": TIMEOUT},
    ),
    Operation(
        "POST",
        f"{_ONE}/resume",
        "Wake it; answered when it is awake.",
        "ResumeContainer",
        "Done",
        {"reason": NAME},
    ),
    Operation(
        "POST",
        f"{_ONE}/pause",
        "Stop it until it is unpaused; answered when it is stopped.",
        "PauseContainer",
        "Done",
        {"by": NAME},
    ),
    Operation(
        "POST",
        f"{_ONE}/unpause",
        "Wake it if it is paused; answered when it is awake.",
        "UnpauseContainer",
        "Unpaused",
        {"reason": NAME},
    ),
    Operation(
        "POST",
        f"{_ONE}/acquire",
        "Keep it awake by a lock of a name, for some seconds.",
        "AcquireWakeLock",
        "Done",
        {"name": NAME, "timeout": TIMEOUT},
        ("name", "timeout"),
    ),
    Operation(
        "POST",
        f"{_ONE}/release",
        "Let go of such a lock.",
        "ReleaseWakeLock",
        "Done",
        {"name": NAME},
        ("name",),
    ),
    Operation(
        "GET",
        "/events",
        "What happens, as server-sent events.",
        fields={"container": NAME},
        kind="text/event-stream",
    ),
    Operation("GET", "/metrics", "Figures of all containers, for Prometheus.", kind="text/plain"),
    Operation("GET", "/", "A page for people.", public=True, kind="text/html; charset=utf-8"),
    Operation("GET", "/openapi.json", "This description.", public=True, answers="OpenAPI"),
)
"""All of them."""


@frozen
class Tools:
    """
    What resources are made with.

    @ivar containers: those of the service at this moment, by name.
    """

    manager: Manager
    feed: Feed
    containers: Callable[[], Mapping[str, Container]]
    reactor: Any


class Resources:
    """
    Answers requests.

    @ivar streams: the most streams of events at a time; may be changed.
    """

    def __init__(self, tools: Tools, streams: int) -> None:
        self._tools = tools
        self.streams = streams
        self._measured: Metrics | None = None
        self._answers: dict[str, Callable[[HttpRequest, Peer, dict[str, Any]], None]] = {
            "/events": self._events,
            "/": self._page,
            "/metrics": self._metrics,
            "/openapi.json": self._openapi,
            f"{_ONE}/statistics": self._statistics,
            "/containers": self._list,
        }

    def answer(self, asked: HttpRequest, peer: Peer) -> None:
        """Answer a request, now or later."""
        try:
            operation, parameters = self._find(asked)
            if not operation.public:
                expectOwnSite(peer, asked)
                expectRight(peer, operation.verb == "POST")
            given = _body(asked) if operation.verb == "POST" else _query(asked, operation.fields)
            _expect(operation, given)
            answer = self._answers.get(operation.path)
            if answer is not None:
                answer(asked, peer, {**given, **parameters})
            else:
                self._call(asked, peer, operation.method, {**given, **parameters})
        except Exception:
            self._failed(asked, Failure())

    def _failed(self, asked: HttpRequest, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, OSError):
            error = notNow(error)
        elif not isinstance(error, VarlinkError):
            asked.factory.failed(asked, failure)
            error = InternalError()
        asked.fail(error)

    def _find(self, asked: HttpRequest) -> tuple[Operation, dict[str, Any]]:
        path, verb = asked.path.decode("latin-1"), asked.method.decode("latin-1")
        verbs = []
        for operation in OPERATIONS:
            match = operation.pattern.fullmatch(path)
            if match is not None and operation.verb == verb:
                # What is no UTF-8 is no name either, and is not found.
                return operation, {k: unquote(v) for k, v in match.groupdict().items()}
            if match is not None:
                verbs.append(operation.verb)
        if verbs:
            allowed = ", ".join(verbs)
            text = f"{brief(verb)} is not for {brief(path)}; {allowed} is"
            raise HttpError(405, "VerbNotAllowed", text, {"Allow": allowed})
        raise HttpError(404, "NotFound", f"there is no {brief(path)}; /openapi.json has them all")

    def _dispatch(
        self, peer: Peer, method: str, parameters: Mapping[str, Any]
    ) -> Reply | Deferred[Reply]:
        call = Call(f"{MANAGER}.{method}", parameters)
        result = self._tools.manager.dispatch(
            Caller(peer.who, peer.credentials, peer.rights, _noWatcher, peer.account),
            call,
            Handed([]),
        )
        assert result is not None
        return result

    def _call(
        self, asked: HttpRequest, peer: Peer, method: str, parameters: Mapping[str, Any]
    ) -> None:
        result = self._dispatch(peer, method, parameters)
        if isinstance(result, Reply):
            asked.reply(result.parameters)
        else:
            result.addCallbacks(
                lambda reply: asked.reply(reply.parameters),
                lambda failure: self._failed(asked, failure),
            )

    def _list(self, asked: HttpRequest, peer: Peer, parameters: dict[str, Any]) -> None:
        """All at once: an answer here has no bound of its own."""
        found: list[Any] = []
        following: int | None = 0
        answer: dict[str, Any] = {}
        while following is not None:
            portion = {**parameters, "first_container": following}
            reply = self._dispatch(peer, "ListContainers", portion)
            assert isinstance(reply, Reply)
            answer = {**reply.parameters}
            found += answer["containers"]
            following = answer.pop("next_container", None)
        asked.reply({**answer, "containers": found})

    def _statistics(self, asked: HttpRequest, peer: Peer, parameters: dict[str, Any]) -> None:
        reply = self._dispatch(peer, "Describe", parameters)
        assert isinstance(reply, Reply)
        description = reply.parameters["description"]
        asked.reply({key: description[key] for key in ("statistics", "histogram", "latencies")})

    def _page(self, asked: HttpRequest, peer: Peer, parameters: dict[str, Any]) -> None:
        from chanproxy.manager.http.page import page

        text, headers = page()
        asked.succeed(200, "text/html; charset=utf-8", text, headers)

    def _metrics(self, asked: HttpRequest, peer: Peer, parameters: dict[str, Any]) -> None:
        try:
            from chanproxy.manager.http.metrics import Metrics
        except ImportError as error:
            raise HttpError(
                501,
                "NoMetrics",
                "the service has no package prometheus_client; install chanproxy[metrics] there",
            ) from error
        if self._measured is None:
            self._measured = Metrics(self._tools.reactor, self._tools.containers)
        accept = (asked.getHeader(b"Accept") or b"").decode("latin-1")
        found = self._measured.text(accept, peer.rights.allows, peer.account.charge)
        found.addCallbacks(
            lambda text: asked.succeed(200, text[0], text[1], {}),
            lambda failure: self._failed(asked, failure),
        )

    def _openapi(self, asked: HttpRequest, peer: Peer, parameters: dict[str, Any]) -> None:
        from chanproxy.manager.http.openapi import description

        asked.reply(description())

    def _events(self, asked: HttpRequest, peer: Peer, parameters: dict[str, Any]) -> None:
        wanted = parameters.get("container")
        if wanted is not None:
            # With its errors.
            self._dispatch(peer, "Describe", {"container": wanted})
        feed = self._tools.feed
        most, mine = self.streams, feed.of(peer.account)
        if len(feed) >= most or (mine >= max(most // 8, 1) and not peer.account.owner):
            raise LimitExceeded("limits.http-streams")
        last = (asked.getHeader(b"Last-Event-ID") or b"").decode("latin-1")
        if last and not (last.isascii() and last.isdigit() and len(last) < 20):
            raise InvalidParameter("Last-Event-ID", f"Last-Event-ID: {brief(last)} is no id")
        stream = Stream(
            self._tools.reactor,
            asked,
            lambda name: peer.rights.allows(name) and wanted in (None, name),
            asked.drop,
            peer.account,
            "" if peer.acts else LOOKS_ONLY,
        )
        asked.begin(200, "text/event-stream", {"X-Accel-Buffering": "no"})
        asked.notifyFinish().addBoth(lambda _: feed.remove(stream))
        feed.add(stream, int(last) if last else None)


def _noWatcher(remove: object) -> Any:
    raise AssertionError


def _expect(operation: Operation, given: Mapping[str, Any]) -> None:
    """@raise VarlinkError: there is more than it takes, or less."""
    for name in given:
        if name not in operation.fields:
            text = f"there is no {brief(name)} here; {meant(name, operation.fields)}"
            raise InvalidParameter(name, text)
    for name in operation.required:
        if given.get(name) is None:
            raise InvalidParameter(name, f"{name} is missing; it is required")


def _query(asked: HttpRequest, fields: Mapping[str, Schema]) -> dict[str, Any]:
    """What is written there is text: a number or a flag is what should be one and looks like it."""
    found: dict[str, Any] = {}
    for name, values in (asked.args or {}).items():
        key, text = name.decode("utf-8", "replace"), values[-1].decode("utf-8", "replace")
        kind = fields.get(key, {}).get("type")
        found[key] = text
        if kind == "integer" and text.isascii() and text.isdigit() and len(text) < 20:
            found[key] = int(text)
        elif kind == "boolean" and text in ("true", "false"):
            found[key] = text == "true"
    return found


def _body(asked: HttpRequest) -> dict[str, Any]:
    """@raise VarlinkError: it is no JSON object, or does not say that it is JSON."""
    kind = (asked.getHeader(b"Content-Type") or b"").decode("latin-1")
    if kind.partition(";")[0].strip().lower() != "application/json":
        # What a form of another site can send, a browser sends without asking us before.
        text = "write Content-Type: application/json"
        raise HttpError(415, "NoJson", f"the body is {brief(kind)}; {text}")
    data = asked.content.read()
    try:
        return readObject(data) if data else {}
    except ValueError as error:
        raise CallMalformed(f"the body is no call: {error}") from None
