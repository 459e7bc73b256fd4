import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {name: (ROOT / name).read_text(encoding="utf-8") for name in (
    "requirements.lock", "requirements-dev.lock",
)}  # fmt: skip
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.lower())


def pins(lock: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", LOCKS[lock], re.MULTILINE)
    return {canonical(name): version for name, version in found}


def names(entries: list[object]) -> set[str]:
    texts = [entry for entry in entries if isinstance(entry, str)]
    return {canonical(re.split(r"[<>=\[ ;]", text)[0]) for text in texts}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_host(lock: str) -> None:
    assert "://" not in LOCKS[lock]
    assert "--index" not in LOCKS[lock]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_of_a_lock_is_hashed(lock: str) -> None:
    blocks = re.split(r"\n(?=[a-z0-9])", LOCKS[lock].strip())
    assert len(blocks) > 100
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_every_dependency_of_the_project_is_locked() -> None:
    groups = PROJECT["dependency-groups"]
    runtime = names(PROJECT["project"]["dependencies"])
    assert runtime | names(groups["build"]) <= set(pins("requirements.lock"))
    everything = runtime.union(*(names(entries) for entries in groups.values()))
    assert everything <= set(pins("requirements-dev.lock"))


def test_developers_run_the_versions_that_users_run() -> None:
    developers = pins("requirements-dev.lock")
    assert pins("requirements.lock").items() <= developers.items()


def test_users_install_no_browser_and_no_test_tools() -> None:
    assert not {"playwright", "pytest", "sphinx", "mypy"} & set(pins("requirements.lock"))
