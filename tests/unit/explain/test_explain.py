from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from glomerulab.errors import CheckpointError
from glomerulab.explain.explain import CONTROLS, Explainer
from glomerulab.explain.sanity import SHARES
from glomerulab.explain.targets import Subject
from glomerulab.images import read_image, write_image
from glomerulab.models.checkpoint import ModelCard, save_checkpoint
from glomerulab.models.registry import create_model
from glomerulab.taxonomy import load_taxonomy

PAPER = load_taxonomy("paper")


@pytest.fixture
def run(tmp_path):
    model = create_model("improved_seresnet_small", 4, seed=3)
    card = ModelCard(
        model="improved_seresnet_small",
        taxonomy_name=PAPER.name,
        labels=PAPER.labels,
        input_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
    )
    save_checkpoint(tmp_path / "run" / "checkpoint", model.state_dict(), card)
    return tmp_path / "run"


@pytest.fixture
def subject(tmp_path, rng):
    write_image(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8), tmp_path / "a.png")
    mask = np.zeros((40, 60, 3), np.uint8)
    mask[10:20, 10:30] = 255
    write_image(mask, tmp_path / "a.fsg.png")
    return Subject("a", tmp_path / "a.png", "p1", {"fsg": 1}, {"fsg": tmp_path / "a.fsg.png"})


def test_every_map_is_drawn_and_measured_and_so_are_the_controls(run, subject, tmp_path):
    found = Explainer(run).explain([subject], tmp_path / "out").table
    of_lesion = found[found["label"] == "fsg"].set_index("method")
    assert list(of_lesion.index) == ["grad-cam", "integrated-gradients", "occlusion", *CONTROLS]
    assert of_lesion["mask_share"].unique() == pytest.approx([200 / 2400], abs=0.02)
    assert of_lesion["points_inside"].isin([0, 1]).all()
    assert of_lesion[["deletion", "insertion"]].notna().all(axis=None)
    drawn = of_lesion.loc["occlusion", "overlay"]
    assert read_image(tmp_path / "out" / drawn).shape == (40, 120, 3)
    assert (of_lesion.loc[list(CONTROLS), "overlay"] == "").all()
    called = found.loc[found["called"] == 1, "label"].unique()
    assert len(called) == 1  # softmax calls exactly one


def test_the_same_seed_measures_the_same(run, subject, tmp_path):
    tables = [Explainer(run).explain([subject], tmp_path / name).table for name in "ab"]
    pd.testing.assert_frame_equal(*tables)


def test_only_the_labels_asked_for_are_explained(run, subject, tmp_path):
    explainer = Explainer(run, methods=("grad-cam",))
    found = explainer.explain([subject], tmp_path / "out", label_ids=("cgn",), measured=False)
    assert found.table["label"].tolist() == ["cgn"]
    assert "deletion" not in found.table


def test_a_bad_image_is_named_and_stops_nothing(run, subject, tmp_path):
    gone = replace(subject, image_id="b", path=tmp_path / "gone.png")
    found = Explainer(run).explain([gone, subject], tmp_path / "out")
    assert set(found.table["image_id"]) == {"a"}
    assert [failure.item for failure in found.failures] == ["b"]
    _, failures = Explainer(run).sanity([gone])
    assert [failure.item for failure in failures] == ["b"]


def test_an_id_with_a_slash_stays_in_the_folder(run, subject, tmp_path):
    odd = replace(subject, image_id="../../x")
    Explainer(run, methods=("grad-cam",)).explain([odd], tmp_path / "out")
    assert not list(tmp_path.glob("x*"))
    assert list((tmp_path / "out" / "overlays").glob(".._.._x.*.png"))


def test_the_sanity_check_has_a_row_for_every_step(run, subject):
    table, failures = Explainer(run, methods=("grad-cam", "occlusion")).sanity([subject])
    assert len(table) == 2 * len(SHARES)
    assert table["rank_correlation"].dropna().between(-1, 1).all()
    assert failures == ()


def test_an_altered_checkpoint_is_named(run, subject):
    weights = next((run / "checkpoint").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"0000")
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        Explainer(run)
