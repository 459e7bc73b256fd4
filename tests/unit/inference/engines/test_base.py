import numpy as np
import pytest
import torch

from glomerulab.errors import CheckpointError
from glomerulab.inference.engines.base import open_engine, probabilities_of, stacked
from glomerulab.models.heads import probabilities


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_probabilities_are_those_of_torch(head, rng: np.random.Generator) -> None:
    logits = rng.normal(0, 8, (20, 4)).astype(np.float32)
    theirs = probabilities(torch.from_numpy(logits), head).numpy()
    assert np.abs(probabilities_of(logits, head) - theirs).max() < 1e-12


def test_images_of_any_size_become_one_batch(rng: np.random.Generator) -> None:
    images = [rng.integers(0, 255, size, dtype=np.uint8) for size in ((9, 30, 3), (64, 40, 3))]
    assert stacked(images, 32).shape == (2, 32, 32, 3)


@pytest.mark.parametrize("folder", ["nosuch", "."])
def test_what_is_no_run_is_told_before_a_file_of_it_is_looked_for(tmp_path, folder) -> None:
    with pytest.raises(CheckpointError, match=r"no (such )?run folder") as caught:
        open_engine(tmp_path / folder)
    assert caught.value.where == str(tmp_path / folder)
