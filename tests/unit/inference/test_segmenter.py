"""A segmenter is opened from a run folder, or from another project's ONNX file."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from glomerulab.errors import CheckpointError, ConfigError, GlomerulabError, RunError
from glomerulab.inference.segmenter import SEGMENTER_FILE, open_segmenter
from glomerulab.models.card import SegmenterCard
from glomerulab.models.checkpoint import read_checkpoint
from glomerulab.models.segmentation import create_segmenter, save_segmenter
from glomerulab.runtime.sealing import write_seal

CARD = SegmenterCard(
    encoder="mobilenetv2_050",
    structures=("tubule", "glomerulus", "tuft"),
    cores=("tubule", "glomerulus"),
    mpp=1.0,
    patch_px=64,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
SETTINGS = """
mpp = 0.5
head = "softmax"
[structures]
glomerulus = [1, 2]
tuft = 2
"""

MakeOnnx = Callable[..., Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_segmenter(folder / "checkpoint", create_segmenter(CARD).state_dict(), CARD)
    write_seal(folder)
    return folder


def images(n: int = 2, side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side + 32, 3), dtype=np.uint8)


@pytest.fixture
def make_onnx(tmp_path: Path) -> MakeOnnx:
    """Write a folder whose network multiplies red, green and blue by 10: brightest class wins."""

    def make(
        settings: str = SETTINGS,
        *,
        shape: tuple[int | str, ...] = ("b", 3, "h", "w"),
        dtype: int = TensorProto.FLOAT,
    ) -> Path:
        factor = helper.make_tensor("factor", dtype, [1], [10.0])
        graph = helper.make_graph(
            [helper.make_node("Mul", ["x", "factor"], ["y"])],
            "ten times",
            [helper.make_tensor_value_info("x", dtype, shape)],
            [helper.make_tensor_value_info("y", dtype, shape)],
            [factor],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, tmp_path / "model.onnx")
        (tmp_path / SEGMENTER_FILE).write_text(settings)
        return tmp_path

    return make


def test_a_run_gives_probabilities_of_structures_and_cores(run: Path) -> None:
    segmenter = open_segmenter(run)
    found = segmenter.probabilities(images())
    assert found.shape == (2, 5, 64, 96)
    assert found.dtype == np.float32
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert segmenter.card.structures == CARD.structures
    assert len(segmenter.card.weights_sha256) == 64


def test_threads_of_one_core_each_give_the_same_probabilities(run: Path) -> None:
    segmenter, n = open_segmenter(run), torch.get_num_threads()
    several = [images(1) for _ in range(4)]
    with segmenter.threads() as pool:
        found = list(pool.map(segmenter.probabilities, several))
    assert torch.get_num_threads() == n
    for one, other in zip(map(segmenter.probabilities, several), found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_a_changed_run_is_refused(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    card = copy / "checkpoint" / "checkpoint.json"
    card.write_text(card.read_text().replace('"mpp": 1.0', '"mpp": 2.0'))
    with pytest.raises(RunError, match="checkpoint"):
        open_segmenter(copy)


def test_a_folder_without_a_segmenter_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="train-segmenter"):
            open_segmenter(folder)


def test_a_segmenter_is_no_classifier(run: Path) -> None:
    with pytest.raises(CheckpointError, match="segmenter"):
        read_checkpoint(run)


def test_an_onnx_file_of_another_project_is_read_by_its_toml(make_onnx: MakeOnnx) -> None:
    segmenter = open_segmenter(make_onnx())
    given = np.zeros((2, 32, 64, 3), np.uint8)
    given[:, :, :20, 0] = given[:, :, 20:40, 1] = given[:, :, 40:, 2] = 255
    glomerulus, tuft = segmenter.probabilities(given)[0]
    assert segmenter.card.structures == ("glomerulus", "tuft")
    assert segmenter.card.mpp == 0.5
    assert (glomerulus[:, :20] < 0.01).all()
    assert (glomerulus[:, 20:] > 0.99).all()
    assert (tuft[:, :40] < 0.01).all()
    assert (tuft[:, 40:] > 0.99).all()


@pytest.mark.parametrize(
    ("shape", "side"),
    [(("b", "h", "w", 3), 64), ((1, 3, "h", "w"), 64), ((4, 3, 96, 96), 96)],
    ids=["colours last", "one by one", "fixed batch and size"],
)
def test_shapes_of_onnx_inputs_make_no_difference(
    make_onnx: MakeOnnx, tmp_path: Path, shape: tuple[int | str, ...], side: int
) -> None:
    given = images(3, side)[:, :, :side]
    expected = open_segmenter(make_onnx()).probabilities(given)
    segmenter = open_segmenter(make_onnx(shape=shape))
    np.testing.assert_allclose(segmenter.probabilities(given), expected, atol=1e-6)
    assert segmenter.card.has_fixed_size == (side == 96)


def test_colours_are_scaled_and_ordered_as_the_toml_says(make_onnx: MakeOnnx) -> None:
    settings = (
        'mpp = 1.0\nhead = "none"\nscale = 1.0\nmean = [10, 20, 30]\nstd = [2000, 2000, 2000]\n'
    )
    settings += 'channel_order = "bgr"\n[structures]\ntuft = 0\n'
    segmenter = open_segmenter(make_onnx(settings))
    given = np.full((1, 32, 32, 3), (30, 20, 15), np.uint8)
    np.testing.assert_allclose(segmenter.probabilities(given), 0.025, atol=1e-6)


@pytest.mark.parametrize(
    ("before", "after", "subject"),
    [
        ("mpp = 0.5", "", "mpp"),
        ("mpp = 0.5", "mpp = 0", "mpp"),
        ("mpp = 0.5", "mpp = 0.5\nstride = 2", "stride"),
        ("softmax", "argmax", "head"),
        ("softmax", "none", "head"),  # the output is no probability
        ("tuft = 2", "tuft = 3", "channel 3"),
        ("tuft = 2", "tuft = -1", "tuft"),
        ("tuft = 2", "tuft = 2\n[cores]\ntubule = 0", "tubule"),
        ("mpp = 0.5", "mpp = 0.5\nstd = [1, 0, 1]", "std"),
        ("[1, 2]", "[]", "glomerulus"),
        ("mpp = 0.5", "mpp = ", "TOML"),
    ],
)
def test_mistakes_in_the_toml_are_named(
    make_onnx: MakeOnnx, before: str, after: str, subject: str
) -> None:
    with pytest.raises(ConfigError, match=subject) as caught:
        open_segmenter(make_onnx(SETTINGS.replace(before, after)))
    assert SEGMENTER_FILE in str(caught.value.where)


def test_onnx_files_that_do_not_suit_are_named(make_onnx: MakeOnnx) -> None:
    for shape in (("b", 1, "h", "w"), ("b", 3, 64, 32), ("b", 3)):
        with pytest.raises(CheckpointError, match="segmenter"):
            open_segmenter(make_onnx(shape=shape))
    folder = make_onnx()
    (folder / "model.onnx").write_bytes(b"not a network")
    with pytest.raises(CheckpointError, match="ONNX"):
        open_segmenter(folder)
    (folder / "model.onnx").unlink()
    with pytest.raises(GlomerulabError, match="ONNX"):
        open_segmenter(folder)
