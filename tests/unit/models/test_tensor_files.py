import json
from pathlib import Path

import pytest
import torch

from glomerulab.errors import CheckpointError
from glomerulab.models.tensor_files import read_sealed, write_sealed

FIRST = {"a": torch.arange(6.0).reshape(2, 3)}


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    write_sealed(tmp_path, "thing", FIRST, {"epoch": 3, "名": "肾"})
    tensors, facts = read_sealed(tmp_path, "thing")
    assert torch.equal(tensors["a"], FIRST["a"])
    assert (facts["epoch"], facts["名"]) == (3, "肾")


def test_a_new_one_replaces_the_old(tmp_path: Path) -> None:
    write_sealed(tmp_path, "thing", FIRST, {})
    write_sealed(tmp_path, "thing", {"a": torch.zeros(1)}, {})
    assert len(list(tmp_path.iterdir())) == 2
    assert read_sealed(tmp_path, "thing")[0]["a"].tolist() == [0.0]


def test_tensors_written_without_their_facts_are_not_taken_for_new(tmp_path: Path) -> None:
    write_sealed(tmp_path, "thing", FIRST, {"epoch": 1})
    (tmp_path / "thing-0123456789abcdef.safetensors").write_bytes(b"half of the next one")
    tensors, facts = read_sealed(tmp_path, "thing")
    assert facts["epoch"] == 1
    assert torch.equal(tensors["a"], FIRST["a"])


def test_altered_truncated_and_missing_tensors_are_refused(tmp_path: Path) -> None:
    write_sealed(tmp_path, "thing", FIRST, {})
    path = next(tmp_path.glob("*.safetensors"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        read_sealed(tmp_path, "thing")
    path.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        read_sealed(tmp_path, "thing")
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_sealed(tmp_path, "thing")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "not valid JSON"), ("[]", "one JSON object"), ("{}", "names no tensors_file")],
)
def test_facts_that_are_none_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "thing.json").write_text(text)
    with pytest.raises(CheckpointError, match=reason):
        read_sealed(tmp_path, "thing")


def test_facts_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "thing.json").write_text(json.dumps({"tensors_file": "../../etc/passwd"}))
    with pytest.raises(CheckpointError, match="names no tensors_file"):
        read_sealed(tmp_path, "thing")
