import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glomerulab.errors import CheckpointError
from glomerulab.models.card import ModelCard
from glomerulab.models.checkpoint import (
    load_checkpoint,
    read_tensors,
    write_tensors,
)
from glomerulab.runtime.sealing import write_bundle
from glomerulab.taxonomy import load_taxonomy
from tests.support.known_networks import write_small_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_small_checkpoint(tmp_path, input_size=64, mpp=0.5, epoch=7)


def _rewrite(folder: Path, **changes: object) -> None:
    path = folder / "checkpoint" / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_checkpoint_loads_from_its_run_folder(folder: Path) -> None:
    model, card = load_checkpoint(folder)
    assert not model.training
    assert (card.epoch, card.mpp, card.taxonomy) == (7, 0.5, load_taxonomy("paper"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "resnet99"}, "unknown model"),
        ({"options": {"reading": "cited"}}, "the weights do not fit the model"),
        ({"format": 2}, "format"),
        ({"shell": "rm"}, "shell"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(
    folder: Path, changes: dict[str, object], reason: str
) -> None:
    _rewrite(folder, **changes)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(folder)


def test_a_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such checkpoint\.json"):
        load_checkpoint(tmp_path)


def test_tensors_read_back_as_written(tmp_path: Path) -> None:
    written = torch.arange(6.0).reshape(2, 3)
    write_tensors(tmp_path, "state", {"a": written, "b": written.T}, {"epoch": 3})
    tensors, facts = read_tensors(tmp_path, "state")
    assert torch.equal(tensors["a"], written)
    assert torch.equal(tensors["b"], written.T)
    assert facts["epoch"] == 3


def test_bytes_that_are_not_tensors_are_rejected(tmp_path: Path) -> None:
    write_bundle(tmp_path, "state", b"text", {})
    with pytest.raises(CheckpointError) as caught:
        read_tensors(tmp_path, "state")
    assert caught.value.where is not None
    assert caught.value.where.endswith(".safetensors")


def test_the_taxonomy_has_the_order_of_the_logits() -> None:
    labels = load_taxonomy("paper").labels
    card = ModelCard(
        model="resnet50",
        taxonomy_name="paper",
        labels=labels,
        input_size=224,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
    )
    assert card.taxonomy.label_ids == ("normal", "mspgn", "fsg", "cgn")


def test_a_card_is_read_without_torch() -> None:
    code = "import sys, glomerulab.models.card; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
