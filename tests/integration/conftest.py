"""What tests of the program share: running it, a browser, and disks that refuse."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glomerulab.cli.main import main
from tests.support.annotation_browser import Sessions
from tests.support.annotation_server import Server
from tests.support.command_line import Done, Run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the program as a shell would, in this process: importing it each time takes seconds."""

    def run_here(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["glomerulab", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run_here


# One for each module: while it is open no other test may run an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium without traffic of its own."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.fail("Chromium is not installed; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_OPTIONS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: "Browser", server: Server) -> Iterator[Callable[..., "Page"]]:
    """Open a page of the annotation program of a module; errors in its console fail the test."""
    sessions = Sessions(browser, server)
    yield sessions.open
    sessions.close()
    assert sessions.serious_problems() == []


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB; skipped where nothing may be mounted."""
    place = tmp_path / "small disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield place
    # Lazily: libvips holds a file that it failed to write until it is collected.
    subprocess.run(["umount", "--lazy", place], check=True)
