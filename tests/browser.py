"""A real headless Chromium, driven by Playwright, that notes whatever a page should not do."""

import os
import socket
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright
from starlette.types import ASGIApp

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESK = {"width": 1280, "height": 860}
PHONE = {"width": 360, "height": 740}
KEPT = "EASEL_SCREENSHOTS"  # a folder in which tests leave what they saw
PATIENCE = 30_000  # milliseconds; the machines that test may be slow


@contextmanager
def chromium() -> Generator[Browser]:
    """The system's browser. Skips where there is none; to be closed before an event loop runs."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}: the web page was NOT tested; install Debian's chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def serving(app: ASGIApp) -> Generator[str]:
    """The application on a port of its own, in a thread; its address."""
    listener = socket.create_server(("127.0.0.1", 0))  # whoever comes before the server is ready waits here
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@dataclass
class Visit:
    """One page that is open, and what went wrong in it."""

    page: Page
    origin: str
    complaints: list[str] = field(default_factory=list[str])  # console errors and uncaught exceptions
    strays: list[str] = field(default_factory=list[str])  # addresses of other origins
    allowed: tuple[str, ...] = ()  # a complaint that has one of these in it was meant to come

    def check(self) -> None:
        """Fails if the page complained, or asked any other origin for anything."""
        assert [one for one in self.complaints if not any(part in one for part in self.allowed)] == []
        assert self.strays == []

    def fits(self) -> bool:
        """Whether nothing sticks out at the side."""
        return self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    def keep(self, name: str) -> None:
        """A screenshot, where somebody wants one."""
        folder = os.environ.get(KEPT)
        if folder:
            self.page.mouse.move(0, 0)
            self.page.evaluate("document.activeElement.blur()")
            path = Path(folder) / f"{name}.png"
            self.page.screenshot(path=path, full_page=True, animations="disabled")

    def hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def see(self, request: Request) -> None:
        if not request.url.startswith((f"{self.origin}/", "data:")):
            self.strays.append(request.url)


@contextmanager
def visit(browser: Browser, origin: str, **options: Any) -> Generator[Visit]:
    """The page in a context of its own: nothing of an earlier visit is kept. Checked when it ends well."""
    chosen: dict[str, Any] = {"viewport": DESK} | options
    context = browser.new_context(**chosen)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    here = Visit(page, origin)
    page.on("console", here.hear)
    page.on("pageerror", lambda error: here.complaints.append(str(error)))
    page.on("request", here.see)
    try:
        page.goto(f"{origin}/")
        page.get_by_role("button", name="Run").wait_for()
        yield here
        here.check()
    finally:
        context.close()


def answer_with(page: Page, path: str, body: Mapping[str, Any], status: int = 200) -> None:
    """From now on, this address gives this JSON."""
    page.route(path, lambda route: route.fulfill(json=dict(body), status=status))
