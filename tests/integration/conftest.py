"""What tests of the program share: running it, and disks that refuse."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glomerulab.cli.main import main
from tests.support.command_line import Done, Run


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
