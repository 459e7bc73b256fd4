from dataclasses import replace

import pytest

from glomerulab.evaluation.eval_set import eval_set_of_split
from glomerulab.evaluation.run_tables import read_run
from glomerulab.evaluation.scores import score_table
from glomerulab.reports.run.facts import appendix_tables, data_table, headline, summary
from tests.support.eval_sets import eval_set_from, random_sigmoid
from tests.support.run_folders import RunRecipe, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = RunRecipe(n_patients=10, n_images_per_patient=6)
    return read_run(write_run(tmp_path_factory.mktemp("run") / "run", recipe))


def test_the_headline_says_images_patients_accuracy_and_chance():
    labels = [[1, 0, 0, 0]] * 6 + [[0, 1, 0, 0]] * 4
    probabilities = [[0.9, 0.1, 0, 0]] * 8 + [[0.1, 0.9, 0, 0]] * 2
    eval_set = eval_set_from(labels, probabilities)
    text = headline(eval_set, score_table(eval_set)).replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith("On 10 held-out images of 10 patients, the model was right on 80.0 %")
    assert text.endswith("Always answering “Normal” would be right on 60.0 %.")


def test_one_patient_is_singular_and_has_no_interval():
    eval_set = eval_set_from([[1, 0, 0, 0]], [[1, 0, 0, 0]])
    assert "1 held-out image of 1 patient," in headline(eval_set, score_table(eval_set))
    assert "(interval not defined)" in headline(eval_set, score_table(eval_set))


def test_a_multi_label_headline_speaks_of_every_label():
    eval_set = random_sigmoid()
    text = headline(eval_set, score_table(eval_set))
    assert "had every label right on" in text
    assert "most frequent combination" in text


def test_the_summary_says_how_intervals_were_made(run):
    eval_set = eval_set_of_split(run.predictions, run.taxonomy)
    assert "2,000 resamples of patients" in summary(eval_set, n_resamples=2000)[0]


def test_the_data_table_counts_every_part(run):
    table = data_table(run)
    assert [row[0] for row in table.rows] == ["train", "validation", "test"]
    assert sum(int(row[1]) for row in table.rows) == 60
    assert sum(int(row[2]) for row in table.rows) == 10
    assert "no patient stands in more than one part" in table.note


def test_the_appendix_shows_settings_and_versions(run):
    eval_set = eval_set_of_split(run.predictions, run.taxonomy)
    model, environment = appendix_tables(run, eval_set)
    assert ("name", "improved_seresnet50") in model.rows
    assert ("packages.torch", "2.13.0") in environment.rows


def test_copies_among_the_training_images_are_counted(run):
    assert "made from the others" not in data_table(run).note
    table = run.manifest.table.copy()
    training = (table["split"] == "train").to_numpy(dtype=bool)
    table.loc[training.nonzero()[0][:3], "parent_id"] = table["image_id"].iloc[-1]
    note = data_table(replace(run, manifest=run.manifest.with_table(table))).note
    assert f"3 of the {training.sum()} training images were made from the others." in note
