import pytest

from glomerulab.evaluation.eval_set import eval_set_of_split
from glomerulab.evaluation.run_tables import read_run
from glomerulab.reports.run.gallery import gallery, gallery_note
from tests.support.eval_sets import eval_set_from
from tests.support.run_folders import RunRecipe, write_run


@pytest.fixture
def run(tmp_path):
    recipe = RunRecipe(n_patients=10, n_images_per_patient=6, skill=0.3)
    return read_run(write_run(tmp_path / "run", recipe))


def test_the_gallery_shows_pictures_from_the_manifest(run):
    items = gallery(run, eval_set_of_split(run.predictions, run.taxonomy), n_most=3)
    assert len(items) == 3
    assert all(item.uri.startswith("data:image/jpeg") for item in items)


def test_an_unreadable_picture_is_replaced_by_the_reason(run):
    eval_set = eval_set_of_split(run.predictions, run.taxonomy)
    first = gallery(run, eval_set, n_most=1)[0]
    run.image_paths[first.image_id].write_bytes(b"no picture")
    item = gallery(run, eval_set, n_most=1)[0]
    assert item.uri is None
    assert "not an image" in item.reason


def test_the_note_counts_the_errors(run):
    eval_set = eval_set_of_split(run.predictions, run.taxonomy)
    n_wrong = int((eval_set.truth != eval_set.decision).sum())
    assert gallery_note(eval_set).startswith(f"{n_wrong} of {eval_set.n_images} images")


def test_no_error_is_said_plainly():
    eval_set = eval_set_from([[1, 0, 0, 0]], [[1, 0, 0, 0]])
    assert gallery_note(eval_set) == "There are none: every judged image was called right."
