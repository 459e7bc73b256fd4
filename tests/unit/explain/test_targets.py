import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.manifest import manifest_from_rows, write_manifest
from glomerulab.errors import ImageFileError, ManifestError
from glomerulab.explain.targets import find_subjects, read_mask
from glomerulab.images import write_image
from glomerulab.taxonomy import load_taxonomy

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
    found = find_subjects(cohort / "manifest.csv", PAPER, split="test")
    assert [one.image_id for one in found] == ["a1", "a2"]
    assert found[0].patient_id == "p1"
    assert found[0].labels == {"fsg": 1, "cgn": 0}  # the others are unknown
    assert found[0].masks == {"fsg": cohort / "masks" / "a1.fsg.png"}
    assert found[1].masks == {}


def test_a_folder_and_a_single_file_are_explained_too(cohort):
    assert len(find_subjects(cohort / "images", PAPER)) == 3
    one = find_subjects(cohort / "images" / "a1.png", PAPER, masks=cohort / "masks")[0]
    assert (one.image_id, list(one.masks)) == ("a1", ["fsg"])


def test_nothing_to_explain_is_an_error_that_says_what_was_looked_for(cohort, tmp_path):
    with pytest.raises(ManifestError, match="no image of split 'validation'"):
        find_subjects(cohort / "manifest.csv", PAPER, split="validation")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageFileError, match="no image in this folder"):
        find_subjects(tmp_path / "empty", PAPER)
    with pytest.raises(ImageFileError, match="no such folder of masks"):
        find_subjects(cohort / "images", PAPER, masks=tmp_path / "nowhere")


def test_a_mask_is_brought_to_the_size_of_the_input_and_a_tiny_lesion_is_kept(cohort, tmp_path):
    mask = read_mask(cohort / "masks" / "a1.fsg.png", 8)
    assert mask.shape == (8, 8)
    assert mask[:4].all()
    assert not mask[4:].any()
    dot = np.zeros((64, 64, 3), np.uint8)
    dot[33, 33] = 255
    write_image(dot, tmp_path / "dot.png")
    assert read_mask(tmp_path / "dot.png", 8).sum() == 1
    write_image(dot * 0, tmp_path / "none.png")
    with pytest.raises(ImageFileError, match="the mask is empty"):
        read_mask(tmp_path / "none.png", 8)
