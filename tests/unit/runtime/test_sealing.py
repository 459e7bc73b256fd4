import hashlib
import json
import logging
import shutil
from pathlib import Path

import pytest

from glomerulab.errors import CheckpointError, OutputError, RunError
from glomerulab.runtime.sealing import (
    SEALED_FILES,
    SealedFolder,
    check_seal,
    open_model_folder,
    read_bundle,
    refuse_other_model,
    write_bundle,
    write_seal,
)

NAMES = [name.replace("*", "2") for name in SEALED_FILES]
MEMBER = "runs/one/checkpoint/checkpoint.json"


def _write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"content": name}), encoding="utf-8")


def _reseal_as_version_1(folder: Path) -> None:
    path = folder / "seal.json"
    hashes = json.loads(path.read_text(encoding="utf-8"))["sha256"]
    kept = {name: one for name, one in hashes.items() if not name.startswith("gates/")}
    path.write_text(json.dumps({"sha256": kept}), encoding="utf-8")


@pytest.fixture
def run(tmp_path):
    _write(tmp_path, *NAMES, MEMBER)
    write_seal(tmp_path)
    return tmp_path


def test_an_untouched_folder_passes_and_the_hashes_are_sha256(run):
    assert check_seal(run)
    read = json.loads((run / "seal.json").read_text(encoding="utf-8"))
    expected = hashlib.sha256((run / "predictions.csv").read_bytes()).hexdigest()
    assert read["sha256"]["predictions.csv"] == expected
    assert set(read["sha256"]) == {*NAMES, MEMBER}


@pytest.mark.parametrize("name", [*NAMES, MEMBER])
def test_a_changed_file_is_named(run, name):
    path = run / name
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(RunError, match=f"{name} changed") as caught:
        SealedFolder(run).read(name)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", [*NAMES, MEMBER])
def test_a_missing_file_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(RunError, match=f"{name} is missing") as caught:
        check_seal(run)
    assert caught.value.where == str(run / name)


@pytest.mark.parametrize("name", [*NAMES, MEMBER])
def test_a_file_that_was_added_is_named(run, name):
    content = (run / name).read_bytes()
    (run / name).unlink()
    write_seal(run)
    (run / name).write_bytes(content)
    with pytest.raises(RunError, match="added") as caught:
        check_seal(run)
    assert caught.value.where in {str(run / name), str(run / MEMBER)}


def test_files_that_no_loader_reads_are_free(run):
    _write(run, "report.html", "notes.txt", "onnx/model.onnx", "scores.json")
    assert check_seal(run)


def test_the_bytes_that_are_returned_are_those_that_were_checked(run):
    files = SealedFolder(run)
    (run / "gates" / "gates.json").write_text("{}", encoding="utf-8")  # after it was opened
    with pytest.raises(RunError, match=r"gates/gates\.json changed"):
        files.read("gates/gates.json")


def test_the_checkpoint_folder_of_a_run_is_under_the_seal_of_the_run(run, monkeypatch):
    monkeypatch.chdir(run / "last")
    for folder in (run / "checkpoint", Path()):
        files = SealedFolder(folder)
        assert files.is_complete
        (folder / "checkpoint.json").write_text("{}", encoding="utf-8")
        with pytest.raises(RunError, match="changed"):
            files.read("checkpoint.json")
        write_seal(run)


def test_a_model_without_the_seal_that_it_had_is_refused(run, tmp_path_factory):
    lone = shutil.copytree(run / "checkpoint", tmp_path_factory.mktemp("x") / "checkpoint")
    (run / "seal.json").unlink()
    for folder, card in (
        (run, "card.json"),
        (run, "checkpoint/checkpoint.json"),
        (run / "checkpoint", "checkpoint.json"),
        (lone, "checkpoint.json"),
    ):
        with pytest.raises(RunError, match=r"seal\.json is missing"):
            SealedFolder(folder).read_card(card)


def test_a_seal_that_was_cut_down_to_that_of_an_earlier_version_is_refused(run):
    _reseal_as_version_1(run)
    with pytest.raises(RunError, match="incomplete"):
        SealedFolder(run).read_card("card.json")


def test_a_model_of_an_earlier_version_is_used_with_a_warning(tmp_path, caplog):
    _write(tmp_path, "card.json", "gates/gates.json")
    with caplog.at_level(logging.WARNING):
        SealedFolder(tmp_path).read_card("card.json")
    assert "no seal" in caplog.text
    write_seal(tmp_path)
    _write(tmp_path, "card.json")  # without the mark
    digest = hashlib.sha256((tmp_path / "card.json").read_bytes()).hexdigest()
    (tmp_path / "seal.json").write_text(json.dumps({"sha256": {"card.json": digest}}))
    files = SealedFolder(tmp_path)
    assert files.is_sealed
    assert not files.is_complete
    assert "earlier version" in files.warning
    assert files.read_card("card.json") == {"content": "card.json"}
    (tmp_path / "card.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match="changed"):
        SealedFolder(tmp_path)


def test_resealing_covers_what_was_written_and_nothing_else(run):
    files = SealedFolder(run, rewriting="gates/")
    _write(run, "gates/gates-1.safetensors")
    (run / "gates" / "gates.json").write_text("{}", encoding="utf-8")
    (run / "config.toml").write_text("changed meanwhile", encoding="utf-8")
    files.reseal()
    with pytest.raises(RunError, match=r"config\.toml changed"):
        check_seal(run)
    _write(run, "config.toml")
    assert SealedFolder(run).read("gates/gates.json")[0] == b"{}"
    (run / "gates" / "gates-1.safetensors").write_text("changed", encoding="utf-8")
    with pytest.raises(RunError, match="gates-1"):
        SealedFolder(run).read("gates/gates-1.safetensors")


def test_rewriting_begins_from_what_an_interrupted_rewriting_left(run):
    (run / "gates" / "gates.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError):
        check_seal(run)
    SealedFolder(run, rewriting="gates/").reseal()
    assert check_seal(run)


def test_resealing_completes_the_seal_of_an_earlier_version(run):
    _reseal_as_version_1(run)
    SealedFolder(run, rewriting="gates/").reseal()
    assert SealedFolder(run).is_complete


def test_a_folder_without_a_seal_is_not_sealed(tmp_path):
    assert not check_seal(tmp_path)
    SealedFolder(tmp_path, rewriting="gates/").reseal()
    assert not check_seal(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"sha256": 3}', '{"sha256": {}, "format": []}']
)
def test_a_broken_seal_is_an_error_not_a_pass(run, content):
    (run / "seal.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError) as caught:
        check_seal(run)
    assert caught.value.where == str(run / "seal.json")


def test_no_model_is_written_into_the_folder_of_another_kind(tmp_path):
    refuse_other_model(tmp_path, own="model.onnx")
    _write(tmp_path, "config.toml")
    with pytest.raises(OutputError, match="another model"):
        refuse_other_model(tmp_path, own="model.onnx")
    refuse_other_model(tmp_path, own="config.toml")


def test_only_a_folder_with_a_model_is_a_run_folder(tmp_path):
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(CheckpointError, match="glomerulab train") as caught:
            open_model_folder(folder)
        assert caught.value.where == str(folder)
    for name in ("checkpoint.json", "model.onnx"):
        (tmp_path / name).touch()
        open_model_folder(tmp_path)
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
    with pytest.raises(CheckpointError, match="there is no such") as caught:
        read_bundle(tmp_path, "state")
    assert caught.value.where == str(path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"tensors_file": "../secret"}'])
def test_invalid_facts_are_refused(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        read_bundle(tmp_path, "state")
    assert caught.value.where == str(tmp_path / "state.json")
