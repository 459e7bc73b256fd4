from dataclasses import replace

import numpy as np
import pytest

from glomerulab.evaluation.eval_set import eval_set_of_split
from glomerulab.evaluation.result import evaluate_run
from glomerulab.evaluation.run_tables import read_run
from glomerulab.evaluation.scores import score_table
from glomerulab.reports.run.facts import (
    CHECKLISTS,
    appendix_tables,
    checklist_tables,
    data_table,
    headline,
    known_facts,
    load_checklist,
    model_card,
    summary,
)
from tests.support.eval_sets import eval_set_from, random_sigmoid
from tests.support.run_folders import RunRecipe, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = RunRecipe(n_patients=10, n_images_per_patient=6)
    return read_run(write_run(tmp_path_factory.mktemp("run") / "run", recipe))


def test_the_headline_has_images_patients_accuracy_and_baseline():
    labels = [[1, 0, 0, 0]] * 6 + [[0, 1, 0, 0]] * 4
    probabilities = [[0.9, 0.1, 0, 0]] * 8 + [[0.1, 0.9, 0, 0]] * 2
    eval_set = eval_set_from(labels, probabilities)
    text = headline(eval_set, score_table(eval_set)).replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith("On 10 held-out images of 10 patients, the model was correct on 80.0 %")
    assert text.endswith("Always calling “Normal” would be correct on 60.0 %.")


def test_one_patient_is_singular_and_has_no_interval():
    eval_set = eval_set_from([[1, 0, 0, 0]], [[1, 0, 0, 0]])
    assert "1 held-out image of 1 patient," in headline(eval_set, score_table(eval_set))
    assert "(interval not defined)" in headline(eval_set, score_table(eval_set))


def test_a_multi_label_headline_states_exact_matches():
    eval_set = random_sigmoid()
    text = headline(eval_set, score_table(eval_set))
    assert "had every label correct on" in text
    assert "most frequent combination" in text


def test_the_summary_names_the_resampling(run):
    eval_set = eval_set_of_split(run.predictions, run.taxonomy)
    assert "2,000 resamples of patients" in summary(eval_set, n_resamples=2000)[0]


def test_the_data_table_counts_every_part(run):
    table = data_table(run)
    assert [row[0] for row in table.rows] == ["train", "validation", "test"]
    assert sum(int(row[1]) for row in table.rows) == 60
    assert sum(int(row[2]) for row in table.rows) == 10
    assert "no patient has images in more than one split" in table.note


def test_the_appendix_shows_settings_and_versions(run):
    eval_set = eval_set_of_split(run.predictions, run.taxonomy)
    model, environment = appendix_tables(run, eval_set)
    assert ("name", "improved_seresnet50") in model.rows
    assert ("packages.torch", "2.13.0") in environment.rows


def test_copies_among_the_training_images_are_counted(run):
    assert "augmented copies" not in data_table(run).note
    table = run.manifest.table.copy()
    training = (table["split"] == "train").to_numpy(dtype=bool)
    table.loc[training.nonzero()[0][:3], "parent_id"] = table["image_id"].iloc[-1]
    note = data_table(replace(run, manifest=run.manifest.with_table(table))).note
    assert f"3 of the {training.sum()} training images are augmented copies." in note


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("run") / "run", RunRecipe(n_patients=10))
    return evaluate_run(read_run(folder))


@pytest.mark.parametrize(("name", "n_main"), [("tripod_ai", 27), ("claim", 44)])
def test_a_checklist_has_every_item_once(name, n_main):
    numbers = [item.number for item in load_checklist(name).items]
    assert len(set(numbers)) == len(numbers)
    main = {int(number.rstrip("abcdefg")) for number in numbers}
    assert main == set(range(1, n_main + 1))


@pytest.mark.parametrize("name", CHECKLISTS)
def test_items_refer_to_known_facts_only(result, name):
    known = known_facts(result)
    used = {fact for item in load_checklist(name).items for fact in item.facts}
    assert used <= set(known)


def test_facts_unknown_to_the_run_are_left_to_the_author(result):
    tripod, claim = checklist_tables(result)
    rows = dict(tripod.rows)
    assert rows["17. Ethical approval and consent"] == "for the author"
    assert "Split by patient" in dict(claim.rows)["20. Level at which partitions are disjoint"]
    assert tripod.is_collapsed


@pytest.mark.parametrize("synthetic", [True, False])
def test_the_model_card_leaves_unknown_sections_to_the_author(tmp_path, synthetic):
    run = write_run(tmp_path / "run", RunRecipe(n_patients=10, synthetic=synthetic))
    rows = dict(model_card(evaluate_run(read_run(run))).rows)
    assert rows["Model"].startswith("improved_seresnet50, softmax head")
    assert "72 images of 6 patients; stains: HE, PAS" in rows["Training data"]
    assert ("rendered by a program" in rows["Training data"]) == synthetic
    assert rows["Origin of the images"] == "For the author to fill in."


def test_a_model_that_is_never_right_may_be_right_sometimes():
    labels = np.eye(4)[np.arange(20) % 4]
    eval_set = eval_set_from(labels, np.roll(labels, 1, axis=1), np.arange(20) // 4)
    text = headline(eval_set, score_table(eval_set))
    assert "0.0 to 60.0" in text
    assert "rule of three" in text
