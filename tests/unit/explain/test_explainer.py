from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.manifest import manifest_from_rows, write_manifest
from glomerulab.errors import CheckpointError, ImageFileError, ManifestError
from glomerulab.explain.explainer import CONTROLS, Explainer, ExplainInput, find_inputs, read_mask
from glomerulab.explain.measures import RANDOM_SHARES
from glomerulab.images import read_image, write_image
from glomerulab.runtime.cluster import open_workers
from glomerulab.taxonomy import load_taxonomy
from tests.support.known_networks import write_small_checkpoint

PAPER = load_taxonomy("paper")


@pytest.fixture
def run(tmp_path):
    return write_small_checkpoint(tmp_path / "run", seed=3)


@pytest.fixture
def subject(tmp_path, rng):
    write_image(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8), tmp_path / "a.png")
    mask = np.zeros((40, 60, 3), np.uint8)
    mask[10:20, 10:30] = 255
    write_image(mask, tmp_path / "a.fsg.png")
    return ExplainInput("a", tmp_path / "a.png", "p1", {"fsg": 1}, {"fsg": tmp_path / "a.fsg.png"})


def test_every_map_is_drawn_and_every_map_and_control_measured(run, subject, tmp_path):
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


def test_the_same_seed_gives_the_same_measures(run, subject, tmp_path):
    tables = [Explainer(run).explain([subject], tmp_path / name).table for name in "ab"]
    pd.testing.assert_frame_equal(*tables)


def test_a_cluster_gives_the_maps_of_this_process(run, subject, tmp_path):
    gone = replace(subject, image_id="b", path=tmp_path / "gone.png")
    here = Explainer(run).explain([gone, subject], tmp_path / "here")
    file = tmp_path / "cluster.toml"
    file.write_text('kind = "local"\njobs = 1\nmemory = "2GB"\n')
    with open_workers(cluster=file) as workers:
        there = Explainer(run).explain([gone, subject], tmp_path / "there", workers=workers)
    pd.testing.assert_frame_equal(here.table, there.table, rtol=1e-3)
    assert [one.item for one in there.failures] == ["b"]
    assert len(list((tmp_path / "there" / "overlays").iterdir())) == len(
        list((tmp_path / "here" / "overlays").iterdir())
    )


def test_only_the_given_labels_are_explained(run, subject, tmp_path):
    explainer = Explainer(run, methods=("grad-cam",))
    found = explainer.explain([subject], tmp_path / "out", label_ids=("cgn",), measured=False)
    assert found.table["label"].tolist() == ["cgn"]
    assert "deletion" not in found.table


def test_an_unreadable_image_is_reported_and_the_others_explained(run, subject, tmp_path):
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
    assert list((tmp_path / "out" / "overlays").glob("_.._x-*.png"))


def test_the_sanity_check_has_a_row_for_every_step(run, subject):
    table, failures = Explainer(run, methods=("grad-cam", "occlusion")).sanity([subject])
    assert len(table) == 2 * len(RANDOM_SHARES)
    assert table["rank_correlation"].dropna().between(-1, 1).all()
    assert failures == ()


def test_an_altered_checkpoint_is_named(run, subject):
    weights = next((run / "checkpoint").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"0000")
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        Explainer(run)


PAPER = load_taxonomy("paper")


@pytest.fixture
def cohort(tmp_path):
    rows = []
    for number, split in enumerate(["train", "test", "test"]):
        write_image(np.full((12, 12, 3), 200, np.uint8), tmp_path / "images" / f"a{number}.png")
        rows.append(
            {"image_id": f"a{number}", "image_path": f"images/a{number}.png", "split": split}
            | {"patient_id": f"p{number}", "fsg": 1, "cgn": 0}
        )
    manifest = manifest_from_rows(pd.DataFrame(rows), folder=tmp_path, taxonomy=PAPER)
    write_manifest(manifest, tmp_path / "manifest.csv")
    mask = np.zeros((12, 12, 3), np.uint8)
    mask[:6] = 255
    write_image(mask, tmp_path / "masks" / "a1.fsg.png")
    return tmp_path


@pytest.fixture(autouse=True)
def _folders(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()


def test_a_manifest_gives_labels_patients_and_the_masks_beside_it(cohort):
    found = find_inputs(cohort / "manifest.csv", PAPER, split="test")
    assert [one.image_id for one in found] == ["a1", "a2"]
    assert found[0].patient_id == "p1"
    assert found[0].labels == {"fsg": 1, "cgn": 0}  # the others are unknown
    assert found[0].masks == {"fsg": cohort / "masks" / "a1.fsg.png"}
    assert found[1].masks == {}


def test_folders_and_single_files_are_inputs(cohort):
    assert len(find_inputs(cohort / "images", PAPER)) == 3
    one = find_inputs(cohort / "images" / "a1.png", PAPER, masks=cohort / "masks")[0]
    assert (one.image_id, list(one.masks)) == ("a1", ["fsg"])


def test_missing_images_and_masks_are_refused(cohort, tmp_path):
    with pytest.raises(ManifestError, match="no image of split 'validation'"):
        find_inputs(cohort / "manifest.csv", PAPER, split="validation")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageFileError, match="holds no image"):
        find_inputs(tmp_path / "empty", PAPER)
    with pytest.raises(ImageFileError, match="masks"):
        find_inputs(cohort / "images", PAPER, masks=tmp_path / "nowhere")


def test_a_mask_is_resized_and_a_tiny_lesion_kept(cohort, tmp_path):
    mask = read_mask(cohort / "masks" / "a1.fsg.png", 8)
    assert mask.shape == (8, 8)
    assert mask[:4].all()
    assert not mask[4:].any()
    dot = np.zeros((64, 64, 3), np.uint8)
    dot[33, 33] = 255
    write_image(dot, tmp_path / "dot.png")
    assert read_mask(tmp_path / "dot.png", 8).sum() == 1
    write_image(dot * 0, tmp_path / "none.png")
    with pytest.raises(ImageFileError, match=r"mask .*\.png.* empty"):
        read_mask(tmp_path / "none.png", 8)
