import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from glomerulab.cohort.near_duplicates import NearDuplicate
from glomerulab.evaluation.eval_set import eval_set_of_split
from glomerulab.evaluation.figures.style import figure_names, find_cjk_font, save_figure
from glomerulab.evaluation.result import evaluate_run
from glomerulab.evaluation.run_tables import read_run
from glomerulab.evaluation.scores import score_table
from glomerulab.i18n.catalogue import catalogue
from glomerulab.reports.run import figures as run_figures
from glomerulab.reports.run.figures import (
    CAPTIONS,
    TABLES_ONLY,
    ImageAnalysis,
    figure_caption,
    gallery,
    gallery_note,
    write_run_figures,
)
from tests.support.eval_sets import PAPER, eval_set_from
from tests.support.run_folders import RunRecipe, write_run


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_every_figure_of_both_heads_has_a_caption_and_two_files(tmp_path, head):
    recipe = RunRecipe(n_patients=8, n_images_per_patient=6, head=head)
    folder = write_run(tmp_path / "run", recipe)
    if head == "sigmoid":
        (folder / "history.csv").unlink()
    result = evaluate_run(read_run(folder))
    names = figure_names(result.run.taxonomy)
    figures = write_run_figures(result, names, tmp_path)
    shown = [number for number in (9, 10, 11) if any(f"Fig. {number} " in f.title for f in figures)]
    assert shown == ([9, 10, 11] if head == "softmax" else [10, 11])  # no history, no curves
    assert all(figure.caption and figure.uri.startswith("data:image/svg") for figure in figures)
    assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.svg"))) == len(figures)


def _latin_words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]{2,}", text)) - {"ROC", "AUC", "SNE"}


@pytest.mark.skipif(find_cjk_font() is None, reason="no font with Chinese is installed")
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_chinese_figures_and_captions_have_no_english_words(tmp_path, head, monkeypatch):
    recipe = RunRecipe(n_patients=10, n_images_per_patient=6, head=head)
    result = evaluate_run(read_run(write_run(tmp_path / "run", recipe)))
    ids = result.eval_set.rows["image_id"].astype(str)
    features = pd.DataFrame(np.random.default_rng(0).normal(size=(len(ids), 8)), index=ids)
    drawn = {}

    def recorded(figure, folder, name):
        drawn[name] = {text.get_text() for text in figure.findobj(Text) if text.get_visible()}
        return save_figure(figure, folder, name)

    monkeypatch.setattr(run_figures, "save_figure", recorded)
    names = figure_names(result.run.taxonomy, "zh")
    figures = write_run_figures(result, names, tmp_path, features=features)
    assert {figure.name for figure in figures} == set(drawn) >= {"embedding", "learning_curves"}
    assert {
        word for texts in drawn.values() for text in texts for word in _latin_words(text)
    } == set()
    assert {word for one in figures for word in _latin_words(one.title + one.caption)} == set()
    assert {figure.language for figure in figures} == {"zh"}


def test_a_class_that_is_absent_has_no_area_and_one_of_one_patient_no_interval(tmp_path):
    labels = np.eye(4)[[0] * 10 + [1] * 10]
    probabilities = np.random.default_rng(1).dirichlet(np.ones(4), size=20)
    eval_set = eval_set_from(labels, probabilities, [0] * 20)
    texts = run_figures._area_texts(eval_set, score_table(eval_set), "roc_auc", figure_names(PAPER))
    assert texts[0].area.endswith("(interval not defined)")
    assert texts[2].area == "not defined"


@pytest.mark.parametrize("name", CAPTIONS)
def test_a_figure_has_title_and_caption_in_both_languages(name):
    assert set(CAPTIONS[name]) <= set(catalogue("zh"))
    assert "{" not in "".join(figure_caption(name, "zh", which="x"))


def test_the_caption_names_the_probabilities():
    _, caption = figure_caption("decision_curves", which="uncalibrated")
    assert caption.endswith("Probabilities uncalibrated.")


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


def test_the_note_of_a_perfect_model():
    eval_set = eval_set_from([[1, 0, 0, 0]], [[1, 0, 0, 0]])
    assert gallery_note(eval_set) == "There are none: every evaluated image was called correctly."


def test_pairs_across_splits_are_severe_and_the_first_are_named():
    pairs = tuple(NearDuplicate(f"a{n}", "test", f"b{n}", "train", n) for n in range(5))
    warning = ImageAnalysis(near_duplicates=pairs).warnings()[0]
    assert warning.severe
    assert warning.text.startswith("5 pairs")
    assert "'a2' (test) and 'b2' (train)" in warning.text
    assert "'a3'" not in warning.text
    assert warning.text.endswith("and 2 more.")


def test_a_search_without_result_differs_from_no_search():
    assert ImageAnalysis(near_duplicates=()).warnings() == ()
    assert TABLES_ONLY.warnings()[0].title == "Near-duplicates not searched for"
