"""The page, in a real browser: what is seen, heard and pressed, while containers sleep and wake."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from twisted.internet.threads import blockingCallFromThread

from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.http.page import page
from chanproxy.wake.counter import MessageCounter
from chanproxy.wake.statistics import EVENTS_KEPT, bootNanoseconds
from support.places import DOCS
from support.ports import freePort
from tests.shared.browser import Browser
from tests.shared.running import thread
from tests.shared.sides import asynchronous, until
from tests.shared.web import Web

T = TypeVar("T")

TOKEN = "0123456789abcdef-page"

pytestmark = pytest.mark.lasts(30)

STATE = "document.querySelector('[data-name=editor] .state')?.textContent"
LABELS = "[...document.querySelectorAll('[data-name=editor] .line button')]"
LABELS += ".map(b => b.getAttribute('aria-label'))"
LEFT = "Math.min(...[...document.querySelectorAll('[data-name=editor] .line button')]"
LEFT += ".map(b => parseFloat(b.style.left)))"
WORTH = "document.querySelector('[data-name=editor] h3').textContent"

SECOND = 1_000_000_000


class Seen:
    """A browser that shows the page of a service that answers by TCP."""

    def __init__(self, reactor: ChanproxyReactor, directory: Path, knows: bool = True) -> None:
        """@param knows: there is a token, and it is entered."""
        self._reactor = reactor
        self._knows = knows
        self._directory = directory
        self._token = directory / "token"
        self._token.write_text(TOKEN)
        self._token.chmod(0o600)
        self.port = freePort()

    def web(self) -> Web:
        """A service, always at the same place."""
        more = f"http-token-file = '{self._token}'" if self._knows else ""
        return Web(self._reactor, self._directory, f"tcp:{self.port}", more)

    async def open(self) -> Browser:
        """The page, with the token that is asked for."""
        browser = await thread(Browser, self._directory)
        try:
            await thread(self._enter, browser)
        except BaseException:
            await thread(browser.close)
            raise
        return browser

    def _enter(self, browser: Browser) -> None:
        browser.shape(1000, 700)
        browser.go(f"http://127.0.0.1:{self.port}/")
        if self._knows:
            asks = "document.querySelector('#ask')"
            browser.until(f"{asks} && !{asks}.hidden")
            browser.value(f"document.querySelector('#token').value = '{TOKEN}'")
            browser.value("document.querySelector('#ask button').click()")
        browser.until(f"{STATE} == 'awake'")


async def closing(browser: Browser, look: Callable[[], T]) -> T:
    """Do what blocks with a browser, and close it."""
    try:
        return await thread(look)
    finally:
        await thread(browser.close)


def _later(reactor: Any, function: Callable[..., object], *arguments: object) -> None:
    """Call it in the reactor's thread."""
    reactor.callFromThread(function, *arguments)


def paint(reactor: ChanproxyReactor, browser: Browser, web: Web) -> None:
    """The picture in the documentation: half a minute of sleeps."""

    def sleep(name: str, seconds: float) -> None:
        container = web.service.containers[name]
        container.suspend(seconds).addErrback(lambda _: None)

    _later(reactor, web.editor.sources.locks.release, "backup")
    for number in range(10):
        _later(reactor, sleep, "editor", 1 + number % 3 * 0.7)
        _later(reactor, sleep, "shop", 60.0)
        time.sleep(3)
        if number % 4 == 3:
            _later(reactor, web.service.containers["shop"].suspension.resume, "breakfast")
    chosen = "document.querySelector('#span')"
    browser.value(f"{chosen}.value = '60'; {chosen}.dispatchEvent(new Event('change'))")
    times = "[...document.querySelectorAll('[data-name=editor] .line .asleep')]"
    browser.value(f"{times}.at(-2).focus()")
    browser.shape(960, 360)
    browser.picture(DOCS / "page.png")


@asynchronous
async def test_seen(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What is seen changes when a container falls asleep and wakes, by buttons and by others."""
    seen = Seen(reactor, tmp_path)
    async with seen.web() as web:
        browser = await seen.open()

        def look() -> None:
            suspend = "document.querySelector('[aria-label=\"suspend editor\"]')"
            browser.value(f"{suspend}.click()")
            browser.until(f"{STATE} == 'asleep'")
            assert browser.value(f"{suspend}.disabled")
            browser.until(f"{LABELS}.some(each => /^asleep from .* until now/.test(each))")
            said = "document.querySelector('#said').textContent"
            browser.until(f"{said} == 'editor is asleep'")
            browser.value("document.querySelector('[aria-label=\"resume editor\"]').click()")
            browser.until(f"{STATE} == 'awake'")
            browser.until(f"{LABELS}.some(each => /^asleep .*woken by the page$/.test(each))")
            browser.until(f"{said} == 'editor is awake, woken by the page'")
            wakes = "document.querySelector('[data-name=editor] .why').innerText"
            browser.until(f"/the page\\s+1/.test({wakes})")
            # Paused, whatever comes.
            pause = "document.querySelector('[data-name=editor] .do:last-of-type')"
            assert browser.value(f"{pause}.getAttribute('aria-label')") == "pause editor"
            browser.value(f"{pause}.click()")
            browser.until(f"{STATE} == 'paused'")
            browser.until(f"{said} == 'editor is paused by the page'")
            assert browser.value(
                "document.querySelector('[aria-label=\"resume editor\"]').disabled"
            )
            _later(reactor, web.editor.suspension.resume, "somebody")
            assert browser.value(f"{pause}.getAttribute('aria-label')") == "unpause editor"
            browser.value(f"{pause}.click()")
            browser.until(f"{STATE} == 'awake'")
            assert browser.value(f"{pause}.getAttribute('aria-label')") == "pause editor"
            # What is refused is said.
            # What a thread has asked for may come after what is clicked then.
            blockingCallFromThread(cast(Any, reactor), web.editor.sources.locks.acquire, "backup")
            browser.value(f"{suspend}.click()")
            browser.until("document.querySelector('[data-name=editor] .bad')")
            about = browser.value("document.querySelector('[data-name=editor] .about').textContent")
            assert "'backup'" in about
            # Others act, too.
            shop = web.service.containers["shop"]
            _later(reactor, lambda: shop.suspend(0.05).addErrback(lambda _: None))
            browser.until(
                "document.querySelector('[data-name=shop] .why').innerText.match(/timeout/)"
            )
            assert browser.complaints() == []
            if os.environ.get("CHANPROXY_TEST_PICTURE"):
                paint(reactor, browser, web)

        await closing(browser, look)
        assert web.editor.suspension.statistics.successes >= 1


@asynchronous
async def test_worth(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """How much of the time it slept, and how long it took to wake it by what it waits for."""
    seen = Seen(reactor, tmp_path)
    async with seen.web() as web:
        counter = MessageCounter(reactor)
        web.editor.sources.add("bell", counter)
        try:
            for _ in range(3):
                web.editor.suspend().addErrback(lambda _: None)
                await until(reactor, lambda: web.editor.suspension.state == "asleep")
                counter.add(1)
                await until(reactor, lambda: web.editor.suspension.state == "awake")
                counter.handled()
            browser = await seen.open()

            def look() -> None:
                text = "document.querySelector('[data-name=editor]').innerText"
                browser.until(f"/Wakes took [\\d.]+ ms \\(median\\)/.test({text})")
                browser.until(f"/Asleep \\d+ % of the time that is known, 3 wakes/.test({text})")
                counts = "[...document.querySelectorAll('[data-name=editor] .took dd:last-of-type"
                counts += ", [data-name=editor] .took .bar')].length"
                assert browser.value(counts) > 1
                # Of one that was not woken by anything it has, nothing is said.
                other = "document.querySelector('[data-name=shop]').innerText"
                assert "took" not in browser.value(other)

            await closing(browser, look)
        finally:
            web.editor.sources.remove(counter)
            counter.close()


@asynchronous
async def test_known(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Of the time before a container is counted nothing is drawn, and nothing is in the share."""
    seen = Seen(reactor, tmp_path)
    async with seen.web() as web:
        # For three minutes of the ten that are shown; all but ten seconds of these asleep.
        statistics, now = web.editor.suspension.statistics, bootNanoseconds()
        statistics.since = now - 180 * SECOND
        statistics.attempted(now - 175 * SECOND)
        statistics.succeeded(now - 5 * SECOND, 170 * SECOND, "timeout")
        browser = await seen.open()

        def look() -> None:
            browser.until(f"{LABELS}.length == 3")
            assert 65 < browser.value(LEFT) <= 70
            share = re.match(r"Asleep (\d+) % of the time that is known, 1 wake$", worth(browser))
            assert share is not None, worth(browser)
            assert 80 < int(share[1]) <= 94
            kinds = [each.partition(" from ")[:2] for each in browser.value(LABELS)]
            assert kinds == [(kind, " from ") for kind in ("awake", "asleep", "awake")]
            # All of a minute is known.
            chosen = "document.querySelector('#span')"
            browser.value(f"{chosen}.value = '60'; {chosen}.dispatchEvent(new Event('change'))")
            assert browser.value(LEFT) == 0
            assert " % of that time, 1 wake" in worth(browser)
            assert browser.complaints() == []

        await closing(browser, look)


@asynchronous
async def test_knownOfMany(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Of the time before the first event that is kept nothing is, either, if there were more."""
    seen = Seen(reactor, tmp_path)
    async with seen.web() as web:
        now = bootNanoseconds()
        for name, count in (("editor", EVENTS_KEPT), ("shop", 8)):
            statistics = web.service.containers[name].suspension.statistics
            statistics.since = now - 480 * SECOND
            for number in range(count):
                begin = now - 240 * SECOND + number * SECOND
                statistics.attempted(begin)
                statistics.succeeded(begin + SECOND // 2, SECOND // 2, "timeout")
        # The first that is kept of the one is of 176 seconds ago.
        browser = await seen.open()

        def look() -> None:
            # As many times awake as asleep.
            browser.until(f"{LABELS}.length == {EVENTS_KEPT}")
            assert 65 < browser.value(LEFT) <= 100 * (600 - 176) / 600
            other = LEFT.replace("editor", "shop")
            assert 15 < browser.value(other) <= 20

        await closing(browser, look)


def worth(browser: Browser) -> str:
    """What is said of how long it slept."""
    return str(browser.value(WORTH))


@asynchronous
async def test_reasons(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """They are counted as in the report, and come to as many wakes as there were."""
    seen = Seen(reactor, tmp_path)
    async with seen.web() as web:
        statistics, now = web.editor.suspension.statistics, bootNanoseconds()
        statistics.since = now - 60 * SECOND
        reasons = [f"editor/node tcp 127.0.0.1:18301 from 127.0.0.1:{52138 + n}" for n in range(9)]
        reasons += [f"editor/{name}#{n}" for name in "abcde" for n in range(3)]
        reasons += ["f", "g", "h"]
        for number, reason in enumerate(reasons):
            statistics.attempted(now - (50 - number) * SECOND)
            statistics.succeeded(now - (50 - number) * SECOND + SECOND // 2, SECOND // 2, reason)
        browser = await seen.open()

        def look() -> None:
            browser.until(f"{WORTH}.endsWith(', 27 wakes')")
            rows = "[...document.querySelectorAll('[data-name=editor] .why li')]"
            rows += ".map(row => [...row.children].map(each => each.textContent))"
            assert browser.value(rows) == [
                ["node tcp 127.0.0.1:18301", "9"],
                *([name, "3"] for name in "abcde"),
                ["other reasons", "3"],
            ]
            # Of each time all is said.
            assert any(each.endswith("from 127.0.0.1:52146") for each in browser.value(LABELS))

        await closing(browser, look)


@asynchronous
async def test_looksOnly(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who may only look sees buttons that are off, and why, without having tried."""
    seen = Seen(reactor, tmp_path, knows=False)
    async with seen.web() as web:
        refused = await web.post("/containers/editor/pause")
        why = refused.tree["parameters"]["message"]
        browser = await seen.open()

        def look() -> None:
            buttons = "[...document.querySelectorAll('.top .do')]"
            assert browser.value(f"{buttons}.map(each => each.disabled)") == [True] * 6
            assert browser.value(f"{buttons}.map(each => each.title)") == [why] * 6
            assert browser.value("document.querySelector('#looks').innerText") == why
            browser.until(f"document.querySelector('#said').textContent == {json.dumps(why)}")
            tree = browser.call("Accessibility.getFullAXTree")["nodes"]
            described = {
                node["name"]["value"]: node.get("description", {}).get("value")
                for node in tree
                if not node.get("ignored") and node["role"]["value"] == "button"
            }
            assert described["suspend editor"] == described["pause shop"] == why
            # What happens is seen all the same, and changes nothing of that.
            _later(reactor, lambda: web.editor.suspend().addErrback(lambda _: None))
            browser.until(f"{STATE} == 'asleep'")
            assert browser.value(f"{buttons}.every(each => each.disabled)")
            assert browser.complaints() == []

        await closing(browser, look)


@asynchronous
async def test_restart(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """It goes on when the service has been started again."""
    seen = Seen(reactor, tmp_path)
    async with seen.web() as web:
        web.editor.suspension.statistics.since -= 300 * SECOND
        browser = await seen.open()
        await thread(browser.until, f"{LEFT} < 60")
    link = "document.querySelector('#link').textContent"
    try:
        await thread(browser.until, f"{link}.startsWith('not connected')")
        async with seen.web() as web:
            await thread(browser.until, f"{link} == 'connected' && {STATE} == 'awake'")
            # What was before, the service does not know any more.
            await thread(browser.until, f"{LEFT} > 80")
            web.editor.suspend().addErrback(lambda _: None)
            await until(reactor, lambda: web.editor.suspension.state == "asleep")
            await thread(browser.until, f"{STATE} == 'asleep'")
    finally:
        await thread(browser.close)


@asynchronous
async def test_keyboard(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """All can be reached by keys, the times by arrows, with what led to each; all has a name."""
    seen = Seen(reactor, tmp_path)
    async with seen.web() as web:
        for _ in range(3):
            await web.post(
                "/containers/editor/suspend", {"timeout": 0.05}, Authorization=f"Bearer {TOKEN}"
            )
        browser = await seen.open()

        def look() -> None:
            browser.until(f"{LABELS}.length >= 6")
            active = "(document.activeElement.getAttribute('aria-label') || '')"
            visited = []
            for _ in range(12):
                browser.press("Tab")
                visited.append(browser.value(active))
                if " until now" in visited[-1]:
                    break
            assert "suspend editor" in visited, visited
            browser.press("ArrowLeft")
            assert "woken by timeout" in browser.value(active)
            about = "document.querySelector('[data-name=editor] .about').textContent"
            assert browser.value(about) == browser.value(active)
            browser.press("Home")
            browser.press("ArrowRight")
            assert browser.value(active).startswith("asleep from")
            # One stop for Tab, however many times there are.
            browser.press("Tab")
            assert "shop" in browser.value(active)
            tree = browser.call("Accessibility.getFullAXTree")["nodes"]
            named = [
                (node["role"]["value"], node.get("name", {}).get("value", ""))
                for node in tree
                if not node.get("ignored")
            ]
            unnamed = [role for role, name in named if role in ("button", "textbox") and not name]
            assert unnamed == []
            assert ("button", "suspend shop") in named
            assert [role for role, _ in named].count("status") >= 2

        await closing(browser, look)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 768, 1600])
@asynchronous
async def test_shapes(reactor: ChanproxyReactor, tmp_path: Path, width: int, dark: bool) -> None:
    """Nothing sticks out, from 320 pixels to wide, and text can be read on its ground."""
    seen = Seen(reactor, tmp_path)
    async with seen.web() as web:
        web.editor.sources.locks.acquire("a" * 200)
        browser = await seen.open()
        right = {"Authorization": f"Bearer {TOKEN}"}
        await web.post("/containers/shop/suspend", {"timeout": 0.05}, **right)

        def look() -> None:
            browser.shape(width, 800, dark)
            browser.value("document.querySelector('[aria-label=\"suspend editor\"]').click()")
            browser.until("document.querySelector('[data-name=editor] .bad')")
            assert browser.value("document.documentElement.scrollWidth") <= width
            for place in (".state", ".about.bad", "#link", "h3", ".do:enabled"):
                assert browser.value(CONTRAST.replace("PLACE", place)) >= 4.5, place

        await closing(browser, look)


CONTRAST = """(() => {
    const light = color => color.match(/[\\d.]+/g).slice(0, 3).map(each => each / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    let ground = document.querySelector("PLACE");
    const text = light(getComputedStyle(ground).color);
    const none = "rgba(0, 0, 0, 0)";
    while (getComputedStyle(ground).backgroundColor === none) ground = ground.parentElement;
    const back = light(getComputedStyle(ground).backgroundColor);
    return (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
})()"""


@asynchronous
async def test_alone(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """It is one file, which loads nothing from elsewhere, and in which nothing else may run."""
    text, headers = page()
    async with Web(reactor, tmp_path) as web:
        answer = await web.get("/", Host="any.example")
        assert (answer.status, answer.body) == (200, text)
        policy = answer.headers["Content-Security-Policy"]
        assert policy == headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    for word in (b"http://", b"https://", b"innerHTML", b"eval(", b"style=", b"onclick"):
        assert word not in text, word
    seen = Seen(reactor, tmp_path)
    async with seen.web():
        browser = await seen.open()

        def look() -> None:
            browser.value(
                "document.body.append(Object.assign(document.createElement('script'), "
                "{textContent: 'window.ran = 1'}))"
            )
            assert browser.value("window.ran") is None
            assert "Content Security Policy" in str(browser.complaints())

        await closing(browser, look)
