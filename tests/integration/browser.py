"""A real browser for tests: Chromium without a window, driven over its debugging protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_S, ANSWER_S = 60.0, 30.0


def find_browser() -> str | None:
    """The program, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self.errors: list[str] = []
        self.requested: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        await self._socket.send_str(json.dumps(message))
        while True:
            answer = await self._socket.receive_json(timeout=ANSWER_S)
            if answer.get("id") == message["id"]:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        what, facts = event.get("method"), event.get("params", {})
        if what == "Runtime.exceptionThrown":
            self.errors.append(str(facts["exceptionDetails"]))
        elif what == "Log.entryAdded" and facts["entry"]["level"] == "error":
            self.errors.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}")
        elif what == "Network.requestWillBeSent":
            self.requested.append(facts["request"]["url"])

    async def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def wait(self, expression: str, within_s: float = ANSWER_S) -> Any:
        """Wait until an expression is true; its value."""
        end = asyncio.get_running_loop().time() + within_s
        while not (value := await self.value(expression)):
            assert asyncio.get_running_loop().time() < end, f"not in {within_s} s: {expression}"
            await asyncio.sleep(0.02)
        return value

    async def open(self, url: str, *, width: int = 1280, dark: bool = False) -> None:
        """Show a page."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        await self.call("Page.navigate", url=url)
        await self.wait("document.body && document.readyState === 'complete'")

    async def press(self, key: str) -> None:
        """One key."""
        text = {"text": "\r"} if key == "Enter" else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))


@asynccontextmanager
async def browsing(program: str, directory: Path) -> AsyncIterator[Page]:
    """A browser with one empty tab and a profile of its own; ended afterwards."""
    argv = [program, *arguments(directory)]
    # It makes sockets there, whose paths may not be long, and does not always remove them.
    temporary = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
    env = {**os.environ, "TMPDIR": temporary.name}
    with (directory / "browser.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env)
    try:
        port = await wait_for_port(directory / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as session:
            url = await page_address(session, port)
            async with session.ws_connect(url, max_msg_size=0) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await page.call(f"{domain}.enable")
                yield page
                await page.call("Browser.close")
    finally:
        end(process)
        temporary.cleanup()


def arguments(directory: Path) -> Sequence[str]:
    """No window, no sandbox where root forbids it, nothing of its own to the network."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return [
        "--headless=new", *sandbox, "--disable-gpu", "--no-first-run", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", "--disable-extensions", "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        "--remote-debugging-port=0", f"--user-data-dir={directory}", "about:blank",
    ]  # fmt: skip


async def wait_for_port(file: Path, process: subprocess.Popen[bytes]) -> int:
    """The port that the browser has taken."""
    end_at = asyncio.get_running_loop().time() + START_S
    while not file.exists() or "\n" not in file.read_text():
        assert process.poll() is None, "the browser has ended"
        assert asyncio.get_running_loop().time() < end_at, "the browser does not start"
        await asyncio.sleep(0.02)
    return int(file.read_text().split()[0])


async def page_address(session: aiohttp.ClientSession, port: int) -> str:
    """Where its tab is driven."""
    while True:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = [each for each in await answer.json() if each["type"] == "page"]
        if pages:
            return str(pages[0]["webSocketDebuggerUrl"])
        await asyncio.sleep(0.02)


def end(process: subprocess.Popen[bytes]) -> None:
    """End it, by force if it must be."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
