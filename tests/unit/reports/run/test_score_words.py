import pytest

from glomerulab.evaluation.scores import LABEL_SCORES, OVERALL_SCORES
from glomerulab.reports.run.score_words import percent, rounded, score_words

NAN = float("nan")


@pytest.mark.parametrize(
    "score", [*LABEL_SCORES, *OVERALL_SCORES["softmax"], *OVERALL_SCORES["sigmoid"]]
)
def test_every_score_has_a_name_and_a_meaning(score):
    name, meaning = score_words(score)
    assert name[0].isupper()
    assert meaning


def test_macro_scores_keep_their_capitals():
    assert score_words("macro_f1")[0] == "Macro F1"
    assert score_words("macro_roc_auc")[0] == "Macro ROC-AUC"
    assert score_words("macro_average_precision")[0] == "Macro average precision"


def test_what_is_not_defined_says_so():
    assert percent(NAN) == rounded(NAN) == "not defined"


def test_a_percentage_never_parts_from_its_sign():
    assert percent(0.4567) == "45.7\N{NO-BREAK SPACE}%"
