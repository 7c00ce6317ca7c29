"""A real browser without a window, led by the DevTools protocol; blocks."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

from support.live import PATIENCE
from tests.shared.serving import program


class Browser:
    """One page of a Chromium with a profile of its own."""

    def __init__(self, directory: Path) -> None:
        log = directory / "chromium.log"
        flags = ["--headless=new", "--remote-debugging-port=0", "--disable-gpu", "--no-first-run"]
        flags += ["--disable-dev-shm-usage", "--disable-background-networking", "--no-proxy-server"]
        # As root it has none; what it shows is ours.
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [program("chromium"), *flags, f"--user-data-dir={directory / 'profile'}"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HOME": str(directory)},
                start_new_session=True,
            )
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        self._link: ClientConnection | None = None
        self._stack = ExitStack()
        try:
            deadline = time.monotonic() + PATIENCE
            while not (found := re.search(r"DevTools listening on (ws://\S+)", log.read_text())):
                assert time.monotonic() < deadline, log.read_text()
                assert self._process.poll() is None, log.read_text()
                time.sleep(0.05)
            connecting = connect(found[1], max_size=None, proxy=None)
            self._link = self._stack.enter_context(connecting)
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Accessibility", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def call(self, method: str, **parameters: Any) -> Any:
        """One command; what it says in between is kept in C{events}."""
        assert self._link is not None
        number = next(self._numbers)
        call: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            call["sessionId"] = self._session
        self._link.send(json.dumps(call))
        while True:
            said = json.loads(self._link.recv(timeout=PATIENCE))
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]
            self.events.append(said)

    def go(self, url: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """What an expression is, in the page."""
        done = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until it is true, or something."""
        deadline = time.monotonic() + PATIENCE
        while not self.value(f"!!({expression})"):
            text = self.value("document.body.innerText")
            assert time.monotonic() < deadline, f"{expression}: {text}; {self.complaints()}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """A key."""
        codes = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35}
        more = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=codes[key],
                **(more if kind == "keyDown" else {}),
            )

    def shape(self, width: int, height: int, dark: bool = False) -> None:
        """How large the window is, and what its user likes."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, file: Path) -> None:
        """Save what is seen."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        file.write_bytes(base64.b64decode(data))

    def complaints(self) -> list[str]:
        """Errors of scripts, and what the page's policy has refused."""
        self.value("0")
        found = []
        for event in self.events:
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(json.dumps(event["params"]))
            entry = event.get("params", {}).get("entry", {})
            if event.get("method") == "Log.entryAdded" and entry.get("source") != "network":
                found.append(json.dumps(entry))
        return found

    def close(self) -> None:
        """End it, with all its processes."""
        if self._link is not None:
            self._session = None
            try:
                self.call("Browser.close")
            finally:
                self._stack.close()
        else:
            self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
