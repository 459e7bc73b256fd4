import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from glomerulab.evaluation.figures.language import figure_names, find_cjk_font
from glomerulab.evaluation.figures.style import save_figure
from glomerulab.evaluation.result import evaluate_run
from glomerulab.evaluation.run_tables import read_run
from glomerulab.evaluation.scores import score_table
from glomerulab.reports.run import figures as run_figures
from glomerulab.reports.run.figures import write_run_figures
from tests.support.eval_sets import PAPER, eval_set_from
from tests.support.run_folders import RunRecipe, write_run


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_every_figure_of_both_heads_has_a_caption_and_two_files(tmp_path, head):
    recipe = RunRecipe(n_patients=8, n_images_per_patient=6, head=head)
    folder = write_run(tmp_path / "run", recipe)
    if head == "sigmoid":
        (folder / "history.csv").unlink()
    judgement = evaluate_run(read_run(folder))
    names = figure_names(judgement.run.taxonomy)
    figures = write_run_figures(judgement, names, tmp_path)
    shown = [number for number in (9, 10, 11) if any(f"Fig. {number} " in f.title for f in figures)]
    assert shown == ([9, 10, 11] if head == "softmax" else [10, 11])  # no history, no curves
    assert all(figure.caption and figure.uri.startswith("data:image/svg") for figure in figures)
    assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.svg"))) == len(figures)


def _latin_words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]{2,}", text)) - {"ROC", "AUC", "SNE"}


@pytest.mark.skipif(find_cjk_font() is None, reason="no font with Chinese is installed")
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_asked_for_chinese_no_figure_or_caption_has_an_english_word(tmp_path, head, monkeypatch):
    recipe = RunRecipe(n_patients=10, n_images_per_patient=6, head=head)
    judgement = evaluate_run(read_run(write_run(tmp_path / "run", recipe)))
    ids = judgement.eval_set.rows["image_id"].astype(str)
    features = pd.DataFrame(np.random.default_rng(0).normal(size=(len(ids), 8)), index=ids)
    drawn = {}

    def seen(figure, folder, name):
        drawn[name] = {text.get_text() for text in figure.findobj(Text) if text.get_visible()}
        return save_figure(figure, folder, name)

    monkeypatch.setattr(run_figures, "save_figure", seen)
    names = figure_names(judgement.run.taxonomy, "zh")
    figures = write_run_figures(judgement, names, tmp_path, features=features)
    assert {figure.name for figure in figures} == set(drawn) >= {"embedding", "learning_curves"}
    assert {
        word for texts in drawn.values() for text in texts for word in _latin_words(text)
    } == set()
    assert {word for one in figures for word in _latin_words(one.title + one.caption)} == set()
    assert {figure.language for figure in figures} == {"zh"}


def test_a_class_that_is_absent_has_no_area_and_one_of_one_patient_no_interval(tmp_path):
    labels = np.eye(4)[[0] * 10 + [1] * 10]
    said = np.random.default_rng(1).dirichlet(np.ones(4), size=20)
    eval_set = eval_set_from(labels, said, [0] * 20)
    texts = run_figures._area_texts(eval_set, score_table(eval_set), "roc_auc", figure_names(PAPER))
    assert texts[0].area.endswith("(interval not defined)")
    assert texts[2].area == "not defined"
