import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    path.relative_to(ROOT / "configs").with_suffix("").as_posix(): path
    for path in (ROOT / "configs").rglob("*.toml")
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a wheel that is built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def _config(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "glomerulab", "config", *arguments],
        cwd=installed.parent,
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_wheel_brings_every_configuration_and_lists_it_in_one_line(installed: Path) -> None:
    for name, path in CONFIGS.items():
        shipped = installed / "glomerulab" / "configs" / f"{name}.toml"
        assert shipped.read_bytes() == path.read_bytes()
    lines = _config(installed).stdout.splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(CONFIGS)
    assert all(len(line.split()) > 3 for line in lines)


def test_a_configuration_of_a_wheel_is_printed_to_the_byte(installed: Path) -> None:
    for name in ("default", "paper.toml"):
        done = _config(installed, name)
        assert done.stdout == CONFIGS[name.removesuffix(".toml")].read_text(encoding="utf-8")


def test_an_unknown_configuration_is_refused_with_the_known_ones(installed: Path) -> None:
    done = _config(installed, "defaults")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "did you mean 'default'" in done.stderr
