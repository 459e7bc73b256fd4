import hashlib
import json

import pytest

from glomerulab.errors import CheckpointError, RunError
from glomerulab.runtime.sealing import (
    SEALED_FILES,
    check_seal,
    read_bundle,
    require_run_folder,
    write_bundle,
    write_seal,
)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    for name in SEALED_FILES:
        (tmp_path / name).write_text(f"content of {name}", encoding="utf-8")
    write_seal(tmp_path)
    return tmp_path


def test_an_untouched_run_passes_and_the_hashes_are_sha256(run):
    assert check_seal(run)
    read = json.loads((run / "seal.json").read_text(encoding="utf-8"))
    expected = hashlib.sha256(b"content of predictions.csv").hexdigest()
    assert read["sha256"]["predictions.csv"] == expected


@pytest.mark.parametrize("name", SEALED_FILES)
def test_a_changed_file_is_named(run, name):
    path = run / name
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(RunError, match=f"{name} changed") as caught:
        check_seal(run)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", SEALED_FILES)
def test_a_missing_file_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(RunError, match=f"{name} is missing") as caught:
        check_seal(run)
    assert caught.value.where == str(run / name)


def test_a_folder_without_a_seal_is_not_sealed(tmp_path):
    assert not check_seal(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": 3}'])
def test_a_broken_seal_is_an_error_not_a_pass(run, content):
    (run / "seal.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError) as caught:
        check_seal(run)
    assert caught.value.where == str(run / "seal.json")


def test_only_a_folder_with_a_model_is_a_run_folder(tmp_path):
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(CheckpointError, match="glomerulab train") as caught:
            require_run_folder(folder)
        assert caught.value.where == str(folder)
    for name in ("checkpoint.json", "model.onnx"):
        (tmp_path / name).touch()
        require_run_folder(tmp_path)
        (tmp_path / name).unlink()


def test_a_bundle_reads_back(tmp_path):
    write_bundle(tmp_path / "new", "state", b"\x00\x01", {"名": "肾"})
    content, facts = read_bundle(tmp_path / "new", "state")
    assert content == b"\x00\x01"
    assert facts["名"] == "肾"


def test_a_new_bundle_replaces_the_old_one(tmp_path):
    write_bundle(tmp_path, "state", b"first", {})
    write_bundle(tmp_path, "state", b"second", {})
    assert len(list(tmp_path.iterdir())) == 2
    assert read_bundle(tmp_path, "state")[0] == b"second"


def test_bytes_without_their_facts_are_ignored(tmp_path):
    write_bundle(tmp_path, "state", b"first", {"epoch": 1})
    (tmp_path / "state-0123456789abcdef.safetensors").write_bytes(b"half of the next one")
    assert read_bundle(tmp_path, "state")[0] == b"first"


def test_altered_truncated_and_missing_bytes_are_refused(tmp_path):
    write_bundle(tmp_path, "state", b"first", {})
    path = next(tmp_path.glob("*.safetensors"))
    for content in (b"other", b"first"[:-1]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="SHA-256 differs"):
            read_bundle(tmp_path, "state")
    path.unlink()
    with pytest.raises(CheckpointError, match="No such file") as caught:
        read_bundle(tmp_path, "state")
    assert caught.value.where == str(path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"tensors_file": "../secret"}'])
def test_invalid_facts_are_refused(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        read_bundle(tmp_path, "state")
    assert caught.value.where == str(tmp_path / "state.json")
