"""Which requests only ask whether a container is well, and how an answer is said again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chanproxy.carry.checked import Answered, Question, isRemembered, question

PATH = b"/health"
REQUEST = b"GET /health?x=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nAccept: */*\r\n\r\n"


@given(st.integers(0, len(REQUEST)))
def test_pieces(length: int) -> None:
    """Of a beginning it is not known yet; of the whole it is."""
    found = question(REQUEST[:length], PATH)
    whole = Question(b"GET /health?x=1", REQUEST)
    assert found == (whole if length == len(REQUEST) else True)


@given(st.binary())
def test_rubbish(said: bytes) -> None:
    """Nothing else is one."""
    assert not isinstance(question(said, PATH), Question)
    assert not isinstance(question(REQUEST + said + b"x", PATH), Question)
    assert question(said, b"") is False


def test_forwarded() -> None:
    """As it was, but for what is between two neighbours."""
    found = question(REQUEST, PATH)
    assert isinstance(found, Question)
    assert found.forwarded() == (
        b"GET /health?x=1 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )


def test_again() -> None:
    """Its head has a line more, and its body none less."""
    answer = Answered(b"HTTP/1.0 204 No\r\nConnection: close\r\nX: y\r\n\r\na\r\n\r\nb\r\n")
    assert isRemembered(answer)
    assert answer.again(b"M: n") == (
        b"HTTP/1.0 204 No\r\nX: y\r\nM: n\r\nConnection: close\r\n\r\na\r\n\r\nb\r\n"
    )


def test_notRemembered() -> None:
    """Bad news, what has no end of its own, and what is no answer."""
    for text in (
        b"HTTP/1.1 503 No\r\n\r\n",
        b"HTTP/1.1 302 There\r\nLocation: /\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n",
        b"hello",
        b"",
    ):
        assert not isRemembered(Answered(text))
