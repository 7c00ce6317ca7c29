"""Calls and replies as bytes, and the reader of parameters: whatever comes, one kind of error."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chanproxy.manager import errors
from chanproxy.manager.errors import MANAGER, SERVICE, CallMalformed, InvalidParameter, VarlinkError
from chanproxy.manager.parameters import Parameters
from chanproxy.manager.varlink import (
    Call,
    Reply,
    encodeCall,
    encodeReply,
    interfaceDescription,
    parseCall,
    parseReply,
)


def texts(**sizes: int) -> st.SearchStrategy[str]:
    """Halves of surrogate pairs included; two that are a pair are one letter in JSON."""
    return st.text(alphabet=st.characters(), **sizes).map(
        lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    )


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)
OBJECTS = st.dictionaries(texts(max_size=8), VALUES, max_size=4)
METHODS = texts(min_size=1)


def oneLine(error: VarlinkError) -> None:
    """What every error has."""
    assert str(error)
    assert len(str(error).splitlines()) == 1
    assert error.parameters["message"] == str(error)
    assert json.loads(error.encode()) == {"error": error.error, "parameters": error.parameters}


@given(METHODS, OBJECTS, st.booleans(), st.booleans())
def test_callThereAndBack(method: str, parameters: Any, more: bool, oneway: bool) -> None:
    """What is written is what is read, and all of it is ASCII."""
    data = encodeCall(method, parameters, more, oneway)
    assert data.isascii()
    assert parseCall(data) == Call(method, parameters, more, oneway)


@given(OBJECTS, st.booleans())
def test_replyThereAndBack(parameters: Any, continues: bool) -> None:
    """Likewise."""
    data = encodeReply(parameters, continues)
    assert data.isascii()
    assert parseReply(data) == Reply(parameters, continues)


@given(METHODS, texts(), OBJECTS)
def test_errorThereAndBack(name: str, message: str, parameters: Any) -> None:
    """Likewise; what a client raises has the fields that were sent."""
    sent = VarlinkError(name, message, parameters)
    with pytest.raises(VarlinkError) as caught:
        parseReply(sent.encode())
    assert (caught.value.error, caught.value.parameters) == (name, sent.parameters)
    assert str(caught.value) == message


def test_compact() -> None:
    """No spaces, and nothing that goes without saying."""
    assert encodeReply({}) == b'{"parameters":{}}'
    assert encodeReply({"a": "é"}, True) == b'{"parameters":{"a":"\\u00e9"},"continues":true}'
    assert encodeCall("a.b") == b'{"method":"a.b","parameters":{}}'


def test_names() -> None:
    """A method's interface is all but its last part."""
    call = parseCall(b'{"method": "org.a.B"}')
    assert call == Call("org.a.B", {}, False, False)
    assert (call.interface, call.name) == ("org.a", "B")
    assert (Call("B").interface, Call("B").name) == ("", "B")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no JSON"),
        (b"\0", "zero byte"),
        (b'{"method": "a.b"}\0', "zero byte"),
        (b"\xff", "no UTF-8 at byte 0"),
        ('{"method": "a.b"}'.encode("utf-16-be"), "no JSON"),
        (b'\xef\xbb\xbf{"method": "a.b"}', "no JSON"),
        (b'{"method": "a.b"} x', "no JSON"),
        (b"[]", "no object"),
        (b"null", "no object"),
        (b"{}", "method is missing"),
        (b'{"method": 1}', "method is no text"),
        (b'{"method": ""}', "method is no text"),
        (b'{"method": null}', "method is no text"),
        (b'{"method": "a.b", "parameters": []}', "parameters is no object"),
        (b'{"method": "a.b", "parameters": null}', "parameters is no object"),
        (b'{"method": "a.b", "more": 1}', "more is neither"),
        (b'{"method": "a.b", "oneway": null}', "oneway is neither"),
        (b'{"method": "a.b", "upgrade": true}', "there is no key 'upgrade'; known are method,"),
        (b'{"method": "a.b", "x\\ny": 1}', r"there is no key 'x\ny'"),
        (b'{"method": "a.b", "parameters": {"x": NaN}}', "NaN"),
        (b'{"method": "a.b", "parameters": {"x": -Infinity}}', "-Infinity"),
        (b'{"method": "a.b", "parameters": {"x": 1e999}}', "too large"),
        (b'{"method": "a.b", "parameters": {"x": ' + b"9" * 5000 + b"}}", "64 bits"),
        (b'{"method": "a.b", "parameters": ' + b'{"x": ' * 30000, "nested too deeply"),
        (b"[" * 60000, "nested too deeply"),
    ],
)
def test_noCall(data: bytes, says: str) -> None:
    """Each has a sentence of its own."""
    with pytest.raises(CallMalformed, match=re.escape(says)) as caught:
        parseCall(data)
    oneLine(caught.value)
    assert caught.value.error == "org.chanproxy.Manager.CallMalformed"


@given(
    st.binary()
    | VALUES.map(lambda tree: json.dumps(tree).encode())
    | st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("method", "parameters", "more", "oneway", "x"), VALUES)
    ).map(lambda tree: json.dumps(tree).encode())
)
def test_anyBytes(data: bytes) -> None:
    """Whatever a packet holds, there is no other exception; as a reply neither."""
    try:
        call = parseCall(data)
    except VarlinkError as error:
        oneLine(error)
    else:
        assert call.method
    with contextlib.suppress(VarlinkError):
        parseReply(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b'{"parameters": 1}', b'{"continues": 1}', b'{"error": 1}', b'{"error":""}'],
)
def test_noReply(data: bytes) -> None:
    """A client hears of it as of any other error."""
    with pytest.raises(errors.ReplyMalformed):
        parseReply(data)


def test_replyOfALaterVersion() -> None:
    """Keys that a client does not know do not break it; nor does an error without a message."""
    assert parseReply(b'{"parameters": {"a": 1}, "new": 1}') == Reply({"a": 1})
    with pytest.raises(VarlinkError, match=r"^org\.x\.Y$"):
        parseReply(b'{"error": "org.x.Y"}')


ERRORS: list[VarlinkError] = [
    errors.InvalidParameter("p", "p is wrong"),
    errors.MethodNotFound("a.B"),
    errors.InterfaceNotFound("a"),
    errors.PermissionDenied("no"),
    errors.ExpectedMore(),
    errors.CallMalformed("no"),
    errors.CallTooLarge(65536),
    errors.ContainerNotFound("editor"),
    errors.ContainerExists("editor"),
    errors.ContainerConfigured("editor"),
    errors.ReloadFailed(["containers.a.linger: is missing", "no"]),
    errors.TraceRunning(),
    errors.TraceNotRunning(),
    errors.WakeSourceExists("x"),
    errors.WakeSourceNotFound(),
    errors.WakeLockNotHeld("x"),
    errors.CounterNotFound("x"),
    errors.WakeLocksExist([str(number) for number in range(7)]),
    errors.SuspendFailure("no"),
    errors.AlreadySuspended("asleep"),
    errors.ContainerPaused("editor", "root"),
    errors.LimitExceeded("limits.wake-sources"),
    errors.InternalError(),
    errors.ReplyMalformed("no"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.error)
def test_errors(error: VarlinkError) -> None:
    """Each is named like its class, and has the fields that the interface says."""
    oneLine(error)
    interface, _, name = error.error.rpartition(".")
    assert name == type(error).__name__
    assert interface in (MANAGER, SERVICE)
    if interface == MANAGER and name != "ReplyMalformed":
        found = re.search(rf"^error {name} \((.*)\)$", interfaceDescription(), re.MULTILINE)
        assert found is not None
        fields = {field.split(":")[0].strip() for field in found[1].split(",")}
        assert fields == set(error.parameters)


def test_allErrors() -> None:
    """None of them is forgotten above."""
    classes = {
        found
        for _, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, VarlinkError) and found is not VarlinkError
    }
    assert classes == {type(error) for error in ERRORS}
    declared = set(re.findall(r"^error (\w+)", interfaceDescription(), re.MULTILINE))
    assert declared <= {found.__name__ for found in classes}


@pytest.mark.parametrize("length", [10, 100000])
def test_echo(length: int) -> None:
    """A caller's own long text does not come back as a longer packet."""
    text = "\u20ac" * length
    for error in (
        errors.InvalidParameter(text, "wrong"),
        errors.MethodNotFound(text),
        errors.InterfaceNotFound(text),
    ):
        assert len(error.encode()) < 4096


def test_interface() -> None:
    """The description is there, wherever the package is installed."""
    assert "\ninterface org.chanproxy.Manager\n" in f"\n{interfaceDescription()}"


# Parameters.


def refused(parameter: str, says: str, read: Any) -> None:
    """The parameter is named, and what is wrong with it."""
    with pytest.raises(InvalidParameter, match=re.escape(says)) as caught:
        read()
    oneLine(caught.value)
    assert caught.value.parameters["parameter"] == parameter


def test_goodParameters() -> None:
    """Each kind, with and without a default; null is as good as left out, if that is allowed."""
    parameters = Parameters(
        {"t": "a é", "n": 1, "w": 5, "c": "x", "f": False, "l": ["b", "a", "b"], "null": None}
    )
    assert parameters.text("t") == "a é"
    assert parameters.text("t2", "d") == "d"
    assert parameters.text("null", None) is None
    number = parameters.number("n", 2.5, 0, 10)
    assert (number, type(number)) == (1.0, float)
    assert parameters.number("n2", 2.5, 0, 10) == 2.5
    assert parameters.whole("w", 1, 5, 5) == 5
    assert parameters.whole("w2", None, 5, 5) is None
    assert parameters.choice("c", "y", "x", "y") == "x"
    assert parameters.choice("c2", "y", "x", "y") == "y"
    assert parameters.flag("f", True) is False
    assert parameters.flag("null", True) is True
    assert parameters.names("l", ("a", "b")) == ("b", "a")
    parameters.end()


def test_missing() -> None:
    """What is required is named; so is what may have been meant by it."""
    refused(
        "container", "is missing; it is required", lambda: Parameters({"x": 1}).text("container")
    )
    refused(
        "container",
        "is missing; did you mean it by 'contaner'?",
        lambda: Parameters({"contaner": "x"}).text("container"),
    )
    refused("a", "a is null; it is required", lambda: Parameters({"a": None}).text("a"))
    refused("l", "l is missing", lambda: Parameters({}).names("l", ("a",)))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (1, "p is a whole number; write a text"),
        ({}, "p is an object"),
        ("", "p is empty"),
        ("a\n", "U+000A"),
        ("\0", "U+0000"),
        ("\u2028", "U+2028"),
        ("\ud800", "U+D800"),
        ("x" * 1025, "more than 1024 bytes"),
        ("é" * 513, "more than 1024 bytes"),
    ],
)
def test_badText(value: object, says: str) -> None:
    """A text is for people to read."""
    refused("p", says, lambda: Parameters({"p": value}).text("p"))
    refused("p", says, lambda: Parameters({"p": value}).text("p", None))


def test_textAtTheEnd() -> None:
    """The limit belongs to what is allowed, and can be another one."""
    assert Parameters({"p": "x" * 1024}).text("p") == "x" * 1024
    refused("p", "more than 3 bytes", lambda: Parameters({"p": "xxxx"}).text("p", mostBytes=3))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (True, "is true or false; write a number from 0 to 10"),
        ("1", "is a text"),
        (-0.1, "p = -0.1 is out of range"),
        (11, "p = 11 is out of range"),
        (float("nan"), "out of range"),
        (10**400, "out of range"),
    ],
)
def test_badNumber(value: object, says: str) -> None:
    """The kind, and the range."""
    refused("p", says, lambda: Parameters({"p": value}).number("p", 1.0, 0, 10))


@pytest.mark.parametrize("value", [1.0, False, "1", 0, 11, [1]])
def test_badWhole(value: object) -> None:
    """A number with a fraction is none, even if the fraction is zero."""
    refused(
        "p",
        "write a whole number from 1 to 10",
        lambda: Parameters({"p": value}).whole("p", 5, 1, 10),
    )


def test_badWords() -> None:
    """The known words are listed, or the nearest one."""
    values = {"c": "conection", "d": 1, "e": "zz", "f": 0}
    words = ("service", "connection")
    refused(
        "c",
        "'conection' is not known; did you mean connection?",
        lambda: Parameters(values).choice("c", "service", *words),
    )
    refused(
        "d", "write one of service, connection", lambda: Parameters(values).choice("d", "", *words)
    )
    refused("e", "write service, connection", lambda: Parameters(values).choice("e", "", *words))
    refused("f", "write true or false", lambda: Parameters(values).flag("f", True))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("in", "is a text; write a list of in, out"),
        ([], "is empty; write a list of in, out"),
        ([1], "holds a whole number"),
        ([["in"]], "holds a list"),
        (["in", "oot"], "holds 'oot', which is not known; did you mean out?"),
        (["zz"], "known are in, out"),
    ],
)
def test_badNames(value: object, says: str) -> None:
    """Each item is looked at."""
    refused("p", says, lambda: Parameters({"p": value}).names("p", ("in", "out")))


def test_unknownParameter() -> None:
    """What nobody asked for."""
    parameters = Parameters({"timeot": 1})
    assert parameters.number("timeout", None, 0, 1) is None
    refused("timeot", "there is no parameter 'timeot'; did you mean timeout?", parameters.end)
    refused("x", "there is no parameter 'x'; leave it out", Parameters({"x": 1}).end)
    refused("a\nb", r"'a\nb'", Parameters({"a\nb": 1}).end)


READS: list[Callable[[Parameters], object]] = [
    lambda parameters: parameters.text("p"),
    lambda parameters: parameters.number("p", 1.0, 0, 10),
    lambda parameters: parameters.whole("p", 1, 0, 10),
    lambda parameters: parameters.choice("p", "a", "a", "b"),
    lambda parameters: parameters.flag("p", True),
    lambda parameters: parameters.names("p", ("a", "b")),
]


@given(OBJECTS, VALUES)
def test_anyParameters(values: Any, value: Any) -> None:
    """Whatever a call holds, there is no other exception."""
    for read in [*READS, Parameters.end]:
        try:
            read(Parameters({**values, "p": value}))
        except VarlinkError as error:
            oneLine(error)
