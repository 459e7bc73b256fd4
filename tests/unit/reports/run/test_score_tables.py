import pytest

from glomerulab.evaluation.scores import score_table
from glomerulab.reports.run.score_tables import label_table, overall_table, score_of
from tests.support.eval_sets import eval_set_from, random_softmax


@pytest.fixture(scope="module")
def eval_set():
    return random_softmax()


@pytest.fixture(scope="module")
def scores(eval_set):
    return score_table(eval_set)


def test_a_score_is_found_by_name_and_label(scores):
    overall, of_label = score_of(scores, "accuracy"), score_of(scores, "recall", "fsg")
    assert set(overall) == {"value", "low", "high"}
    assert overall != of_label


def test_the_overall_table_shows_value_interval_and_meaning(eval_set, scores):
    first = overall_table(eval_set, scores).rows[0]
    found = score_of(scores, "accuracy")
    assert first == (
        "Accuracy\nshare of images called right",
        f"{found['value']:.3f}",
        f"{found['low']:.3f} to {found['high']:.3f}",
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
