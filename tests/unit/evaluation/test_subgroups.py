import numpy as np
import pytest

from glomerulab.evaluation.risk_coverage import image_is_right
from glomerulab.evaluation.subgroups import subgroup_table
from tests.support.judged_samples import judged_from, random_softmax


def _judged():
    eval_set = random_softmax()
    eval_set.rows["stain"] = np.where(np.arange(eval_set.n_images) % 3 == 0, "HE", "PAS")
    eval_set.rows.loc[:4, "stain"] = None
    return eval_set


def test_groups_add_up_to_the_whole():
    eval_set = _judged()
    table = subgroup_table(eval_set, "stain")
    assert table["n_images"].sum() == eval_set.n_images
    assert table["n_right"].sum() == image_is_right(eval_set).sum()
    assert list(table["group"]) == ["PAS", "HE", "unknown"]


def test_an_interval_holds_its_share():
    table = subgroup_table(_judged(), "stain")
    assert (table["low"] <= table["share_right"]).all()
    assert (table["share_right"] <= table["high"]).all()


def test_one_patient_has_no_interval():
    table = subgroup_table(_judged(), "patient_id")
    assert table["low"].isna().all()
    assert (table["n_patients"] == 1).all()


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="scanner"):
        subgroup_table(judged_from(np.eye(4), np.eye(4)), "scanner")


def test_shares_of_agreement_become_levels_and_words_stay():
    eval_set = judged_from(np.eye(4)[[0, 1, 2, 3, 0, 1]], np.eye(4)[[0, 1, 2, 3, 0, 1]])
    eval_set.rows["agreement"] = ["1", "1.0", "0.67", "0.5", "consensus", None]
    table = subgroup_table(eval_set, "agreement").set_index("group")["n_images"]
    assert table.to_dict() == {
        "all agree": 2,
        "most agree": 1,
        "half or fewer agree": 1,
        "consensus": 1,
        "unknown": 1,
    }
