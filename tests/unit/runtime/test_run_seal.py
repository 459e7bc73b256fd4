import hashlib
import json

import pytest

from glomerulab.errors import CheckpointError, RunError
from glomerulab.runtime.run_seal import SEALED_FILES, check_seal, require_run_folder, write_seal


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
    with pytest.raises(RunError, match=r"changed since the run was trained") as caught:
        check_seal(run)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", SEALED_FILES)
def test_a_missing_file_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(RunError, match="missing, though the run had it") as caught:
        check_seal(run)
    assert caught.value.where == str(run / name)


def test_a_folder_without_a_seal_says_nothing(tmp_path):
    assert not check_seal(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": 3}'])
def test_a_broken_seal_is_an_error_not_a_pass(run, content):
    (run / "seal.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match="cannot be read as a seal"):
        check_seal(run)


def test_a_folder_that_is_not_there_or_no_run_is_told_so(tmp_path):
    with pytest.raises(CheckpointError, match="no such run folder"):
        require_run_folder(tmp_path / "nosuch")
    with pytest.raises(CheckpointError, match="is no run folder: it holds no trained model"):
        require_run_folder(tmp_path)
    for name in ("checkpoint.json", "model.onnx"):
        (tmp_path / name).touch()
        require_run_folder(tmp_path)
        (tmp_path / name).unlink()
