from pathlib import Path

import pytest

from glomerulab.errors import CheckpointError
from glomerulab.runtime.sealing import seal, unseal


def test_bytes_and_facts_come_back(tmp_path: Path) -> None:
    seal(tmp_path / "new", "thing", b"\x00\x01", {"名": "肾"})
    content, facts = unseal(tmp_path / "new", "thing")
    assert content == b"\x00\x01"
    assert facts["名"] == "肾"


def test_bytes_of_another_writing_are_refused(tmp_path: Path) -> None:
    seal(tmp_path, "thing", b"first", {})
    next(tmp_path.glob("*.safetensors")).write_bytes(b"other")
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        unseal(tmp_path, "thing")


def test_facts_that_point_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thing.json").write_text('{"tensors_file": "../secret"}')
    with pytest.raises(CheckpointError, match="tensors_file"):
        unseal(tmp_path, "thing")
