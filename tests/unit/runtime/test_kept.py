import os
from pathlib import Path

from glomerulab.runtime.kept import kept


def _content(path: Path, name: str) -> list[str]:
    return [name, *(one.read_text() for one in sorted(path.glob("*/*.txt")))]


def test_what_is_kept_is_loaded_once_and_again_when_a_file_changed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / "weights.txt"
    file.write_text("one")
    first = kept(_content, tmp_path, "a")
    assert kept(_content, tmp_path, "a") is first == ["a", "one"]
    assert kept(_content, tmp_path, "b") == ["b", "one"]
    file.write_text("two")
    os.utime(file, ns=(1, 1))  # as long as before: only the time tells
    assert kept(_content, tmp_path, "a") == ["a", "two"]
