import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_lock_names_no_host() -> None:
    assert "://" not in LOCK
    assert "--index" not in LOCK


def test_every_requirement_of_the_lock_is_hashed() -> None:
    blocks = re.split(r"\n(?=[a-z0-9])", LOCK.strip())
    assert len(blocks) > 100
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_every_dependency_of_the_project_is_locked() -> None:
    groups = PROJECT["dependency-groups"].values()
    wanted = [*PROJECT["project"]["dependencies"]]
    wanted += [entry for group in groups for entry in group if isinstance(entry, str)]
    locked = {
        re.sub(r"[-_.]+", "-", name)
        for name in re.findall(r"^([a-z0-9._-]+)==", LOCK, re.MULTILINE)
    }
    names = {re.sub(r"[-_.]+", "-", re.split(r"[<>=\[ ;]", entry)[0].lower()) for entry in wanted}
    assert names - locked == set()
