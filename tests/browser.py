"""Headless Chromium, asked over its own debugging pipe: no driver and no further package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-extensions "
    "--disable-background-networking --disable-component-update --disable-sync --disable-default-apps "
    "--force-device-scale-factor=1 --hide-scrollbars --remote-debugging-pipe --no-startup-window"
).split()
PATIENCE = 60.0  # seconds for an answer, on a machine that does other things too


def find_browser() -> str:
    """The browser's program; where there is none, a test is skipped, and fails in CI."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    why = f"needs a browser: install one of {', '.join(NAMES)} (Debian: apt install chromium)"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


class Browser:
    """One Chromium with a profile of its own; ``open`` gives a page."""

    def __init__(self) -> None:
        self.profile = tempfile.mkdtemp(prefix="toughen-browser-")
        to_read, self.write = os.pipe()
        self.read, to_write = os.pipe()

        def take_pipes() -> None:  # Chromium reads from 3 and writes to 4
            ours = os.dup(to_read), os.dup(to_write)
            os.dup2(ours[0], 3)
            os.dup2(ours[1], 4)

        command = [find_browser(), *FLAGS, f"--user-data-dir={self.profile}"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, preexec_fn=take_pipes, close_fds=False, **quiet)  # type: ignore[call-overload]
        os.close(to_read)
        os.close(to_write)
        self.number, self.rest, self.events = 0, b"", list[dict[str, Any]]()

    def close(self) -> None:
        """End it."""
        try:
            self.send("Browser.close")
            self.process.wait(10)
        except (OSError, RuntimeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.read)
        os.close(self.write)
        shutil.rmtree(self.profile, ignore_errors=True)

    def send(self, method: str, session: str | None = None, **settings: Any) -> dict[str, Any]:
        """Ask for something, and wait for the answer."""
        self.number += 1
        asked = {"id": self.number, "method": method, "params": settings}
        os.write(self.write, json.dumps(asked | ({"sessionId": session} if session else {})).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while (said := self._next(until)).get("id") != self.number:
            self.events.append(said)
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']}")
        found: dict[str, Any] = said["result"]
        return found

    def wait(self, method: str, session: str) -> None:
        """Wait for an event."""
        until = time.monotonic() + PATIENCE
        while not any(each.get("method") == method and each.get("sessionId") == session for each in self.events):
            self.events.append(self._next(until))

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self.read, 2**20) if ready else b""
            if not part:
                raise RuntimeError("the browser does not answer")
            self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, path: Path, width: int = 1200, height: int = 900, *, dark: bool = False) -> Page:
        """A file in a window of this width, as it is once it has loaded."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, context)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.send(f"{domain}.enable")
        page.size(width, height)
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        page.send("Emulation.setEmulatedMedia", features=theme)
        self.events.clear()
        page.send("Page.navigate", url=path.resolve().as_uri())
        self.wait("Page.loadEventFired", session)
        return page


class Page:
    """One page."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self.browser, self.session, self.context = browser, session, context

    def send(self, method: str, **settings: Any) -> dict[str, Any]:
        return self.browser.send(method, self.session, **settings)

    def size(self, width: int, height: int = 900) -> None:
        """Make the window as wide and high, a phone's where it is narrow."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def ask(self, script: str) -> Any:
        """The value of an expression on the page; one that fails fails the test."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, code: int = 0) -> None:
        """Press a key."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        settings = {"key": key, "windowsVirtualKeyCode": code or {"Tab": 9, "Enter": 13, " ": 32}[key]}
        self.send("Input.dispatchKeyEvent", type="keyDown", **settings, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **settings)

    def complaints(self) -> list[Any]:
        """What stands in the console, and what was thrown."""
        self.ask("new Promise((done) => setTimeout(done, 100))")
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [each["params"] for each in self._own() if each.get("method") in kinds]

    def requests(self) -> list[str]:
        """The addresses that were asked for."""
        return [
            each["params"]["request"]["url"]
            for each in self._own()
            if each.get("method") == "Network.requestWillBeSent"
        ]

    def _own(self) -> list[dict[str, Any]]:
        return [each for each in self.browser.events if each.get("sessionId") == self.session]

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """A picture of the page."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self, path: Path) -> None:
        """The page as it is printed."""
        found = self.send("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        self.browser.send("Target.disposeBrowserContext", browserContextId=self.context)


PLOTS = """[...document.querySelectorAll(".plot")].map((each) => ({
  alt: each.getAttribute("aria-label"), role: each.getAttribute("role"), shown: each.clientWidth > 0,
  drawn: each.querySelectorAll("svg path, svg rect").length, width: each.querySelector("svg")?.clientWidth ?? 0 }))"""


def check_whole(page: Page, path: Path, width: int) -> None:
    """What holds for every report at every width."""
    assert page.complaints() == []
    assert {url for url in page.requests() if not url.startswith("data:image/png;base64,")} == {path.resolve().as_uri()}
    assert page.ask("document.scrollingElement.scrollWidth") <= width
    assert page.ask("[...document.images].every((each) => each.alt && each.complete && each.naturalWidth > 0)")
    shown = [each for each in page.ask(PLOTS) if each["shown"]]
    assert all(len(each["alt"] or "") > 30 and each["drawn"] > 5 and each["width"] <= width for each in shown), shown
    assert page.ask("document.title").endswith(" – toughen report")  # no name has set another
