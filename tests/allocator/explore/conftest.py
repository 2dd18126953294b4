"""The command as a person starts it, and a browser on its page."""

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.helpers import started

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Served(NamedTuple):
    address: str
    """With its token, and the state after ``#``."""
    table: Path
    process: "subprocess.Popen[str]"

    @property
    def root(self) -> str:
        return self.address.partition("#")[0]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


Serve = Callable[..., Served]


@pytest.fixture
def serve(table: Path, tmp_path: Path) -> Iterator[Serve]:
    """Start the command over a copy of the table that a test may change."""
    with ExitStack() as stack:

        def start(*options: object) -> Served:
            copy = tmp_path / "run.db"
            if not copy.exists():
                shutil.copy(table, copy)
            process = stack.enter_context(started("explore", copy, "--no-browser", *options))
            assert process.stdout
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), process.stderr and process.stderr.read()
            return Served(address, copy, process)

        yield start


@pytest.fixture(scope="module")
def served(table: Path) -> Iterator[Served]:
    """One server of the shared table, for tests that change nothing."""
    with started("explore", table, "--no-browser", "--target", "1.2") as process:
        assert process.stdout
        yield Served(process.stdout.readline().strip(), table, process)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("there is no Chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: "Browser") -> "Iterator[Callable[[str], Page]]":
    """Open an address, solved; nothing may go wrong on the page while a test runs, but for requests refused."""
    problems: list[str] = []
    contexts = []

    def go(address: str) -> "Page":
        context = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
        context.set_default_timeout(60_000)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda message: (
                problems.append(message.text)
                if message.type == "error" and "Failed to load resource" not in message.text
                else None
            ),
        )
        page.goto(address)
        page.locator("#proof:not(:empty)").wait_for()
        return page

    yield go
    for context in contexts:
        context.close()
    assert not problems
