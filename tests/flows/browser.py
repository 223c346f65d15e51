"""A Chromium that is driven by its own protocol of debugging."""

import itertools
import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tests.flows.conftest import until


class Browser:
    """One page of a headless Chromium: `open` an address, `run` JavaScript there, `type` as a person does."""

    def __init__(self, program: str, folder: Path):
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]
        self.profile = folder / "profile"
        self.process = subprocess.Popen(
            [program, *options, f"--user-data-dir={self.profile}", "--window-size=1400,1000", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.ids = itertools.count()

    def __enter__(self) -> "Browser":
        chosen = self.profile / "DevToolsActivePort"
        port = until(lambda: chosen.exists() and chosen.read_text().split("\n")[0], 60, "Chromium is there")

        def page():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
                return next((p for p in json.load(answer) if p["type"] == "page"), None)

        self.socket = connect(until(page, 60, "a page")["webSocketDebuggerUrl"], max_size=None)
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)

    def command(self, method: str, **params: Any) -> dict:
        """A command of the protocol, and its result."""
        number = next(self.ids)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(self.socket.recv(timeout=60))).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, address: str) -> None:
        self.command("Page.navigate", url=address)

    def run(self, code: str) -> Any:
        """The value of an expression in the page."""
        return self.command("Runtime.evaluate", expression=code, returnByValue=True)["result"].get("value")

    def type(self, selector: str, text: str) -> None:
        """Put text into the field that a CSS selector finds, then Enter."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.command("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self.command(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
            )

    def picture(self, file: Path) -> None:
        """A screenshot as PNG."""
        import base64

        file.write_bytes(base64.b64decode(self.command("Page.captureScreenshot")["data"]))
