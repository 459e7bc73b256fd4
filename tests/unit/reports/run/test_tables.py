import dataclasses

import pandas as pd
import pytest

from glomerulab.evaluation.result import evaluate_run
from glomerulab.evaluation.run_tables import EXTERNAL, read_run, with_external_set
from glomerulab.evaluation.scores import LABEL_SCORES, OVERALL_SCORES, score_table
from glomerulab.reports.run.tables import (
    MAX_SUBGROUPS,
    certainty_tables,
    external_tables,
    label_table,
    overall_table,
    percent,
    rounded,
    score_description,
    score_of,
    subgroup_tables,
)
from tests.support.eval_sets import eval_set_from, random_softmax
from tests.support.run_folders import RunRecipe, write_run


@pytest.fixture(scope="module")
def eval_set():
    return random_softmax()


@pytest.fixture(scope="module")
def scores(eval_set):
    return score_table(eval_set)


def test_a_score_is_found_by_name_and_label(scores):
    overall, of_label = score_of(scores, "accuracy"), score_of(scores, "recall", "fsg")
    assert overall.low < overall.value < overall.high
    assert overall != of_label


def test_the_overall_table_shows_value_interval_and_meaning(eval_set, scores):
    first = overall_table(eval_set, scores).rows[0]
    found = score_of(scores, "accuracy")
    assert first == (
        "Accuracy\nshare of images called correctly",
        f"{found.value:.3f}",
        f"{found.low:.3f} to {found.high:.3f}",
    )


def test_the_label_table_counts_images_and_patients(eval_set, scores):
    rows = label_table(eval_set, scores).rows
    assert [row[0] for row in rows] == [label.name for label in eval_set.taxonomy.labels]
    assert rows[0][1].startswith(f"{eval_set.n_positive[0]}\nof ")


def test_an_absent_class_is_not_defined_without_an_interval(eval_set):
    kept = eval_set.truth != 0
    without = eval_set_from(
        eval_set.labels[kept], eval_set.probabilities[kept], eval_set.patients[kept]
    )
    row = label_table(without, score_table(without)).rows[0]
    assert row[2] == "not defined\n"


NAN = float("nan")


@pytest.mark.parametrize(
    "score", [*LABEL_SCORES, *OVERALL_SCORES["softmax"], *OVERALL_SCORES["sigmoid"]]
)
def test_every_score_has_a_name_and_a_meaning(score):
    name, meaning = score_description(score)
    assert name[0].isupper()
    assert meaning


def test_macro_scores_keep_their_capitals():
    assert score_description("macro_f1")[0] == "Macro F1"
    assert score_description("macro_roc_auc")[0] == "Macro ROC-AUC"
    assert score_description("macro_average_precision")[0] == "Macro average precision"


def test_nan_is_shown_as_not_defined():
    assert percent(NAN) == rounded(NAN) == "not defined"


def test_a_percentage_does_not_break_before_its_sign():
    assert percent(0.4567) == "45.7\N{NO-BREAK SPACE}%"


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return evaluate_run(read_run(write_run(tmp_path_factory.mktemp("run") / "run", RunRecipe())))


def test_stains_come_with_intervals_and_patients_without(result):
    stains, _, patients = subgroup_tables(result)
    assert {row[0] for row in stains.rows} == {"HE", "PAS"}
    assert all(" to " in row[-1] for row in stains.rows)
    assert not any(" to " in row[-1] for row in patients.rows)


def test_the_lowest_of_many_groups_are_shown(result):
    _, slides, _ = subgroup_tables(result)
    assert len(slides.rows) == MAX_SUBGROUPS
    assert f"The {MAX_SUBGROUPS} lowest of 16" in slides.note
    shares = [float(row[3].split("\N{NO-BREAK SPACE}")[0]) for row in slides.rows]
    assert shares == sorted(shares)


def test_no_groups_no_tables(result):
    assert subgroup_tables(dataclasses.replace(result, subgroups=pd.DataFrame())) == ()


def test_internal_and_external_scores_are_side_by_side(tmp_path):
    run = read_run(write_run(tmp_path / "a", RunRecipe(n_patients=10, n_images_per_patient=6)))
    other = read_run(write_run(tmp_path / "b", RunRecipe(n_patients=5, skill=0.5, seed=3)))
    both = with_external_set(run, other.predictions, other.manifest)
    inside, outside = evaluate_run(run), evaluate_run(both, split=EXTERNAL)
    overall, by_label = external_tables(inside, outside)
    accuracy = next(row for row in overall.rows if row[0] == "Accuracy")
    for cell, one in zip(accuracy[1:], (inside, outside), strict=True):
        assert cell.startswith(f"{score_of(one.scores, 'accuracy').value:.3f}\n")
    crescent = next(row for row in by_label.rows if row[0] == "Crescent")
    first, second = crescent[2].split("\n")
    assert first.startswith(f"{score_of(inside.scores, 'recall', 'cgn').value:.3f}")
    assert second.startswith(f"{score_of(outside.scores, 'recall', 'cgn').value:.3f}")
    assert crescent[1] == f"{inside.eval_set.n_positive[3]} / {outside.eval_set.n_positive[3]}"


def test_calibration_is_shown_before_and_after(result):
    calibration, _ = certainty_tables(result)
    brier = calibration.rows[0]
    assert brier[1] == f"{result.calibration.brier:.3f}"
    assert brier[2] == f"{result.fitted.calibration.brier:.3f}"
    assert f"temperature {result.fitted.temperature:.2f}" in calibration.note


def test_prediction_sets_show_stated_and_observed_coverage(result):
    _, sets = certainty_tables(result)
    stated = [row[0].replace("\N{NO-BREAK SPACE}", " ") for row in sets.rows]
    assert stated == ["80.0 %", "90.0 %", "95.0 %"]
    validation = result.run.predictions.query("split == 'validation'")
    n_patients = validation["patient_id"].nunique()
    assert f"images of {n_patients} patients" in sets.note


def test_without_validation_only_the_uncalibrated_measures_are_shown(result):
    (calibration,) = certainty_tables(dataclasses.replace(result, fitted=None))
    assert calibration.columns == ("Measure", "Uncalibrated")
    assert "no validation split" in calibration.note


def test_evaluating_validation_has_a_note_of_its_own(result):
    (calibration,) = certainty_tables(evaluate_run(result.run, split="validation"))
    assert "this is the validation split itself" in calibration.note
