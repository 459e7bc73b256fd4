import pytest

from glomerulab.evaluation.result import evaluate_run
from glomerulab.evaluation.run_tables import read_run
from glomerulab.reports.run.model_card import model_card
from tests.support.run_folders import RunRecipe, write_run


@pytest.mark.parametrize("synthetic", [True, False])
def test_the_card_says_what_the_run_knows_and_leaves_the_rest_to_the_author(tmp_path, synthetic):
    run = write_run(tmp_path / "run", RunRecipe(n_patients=10, synthetic=synthetic))
    rows = dict(model_card(evaluate_run(read_run(run))).rows)
    assert rows["Model"].startswith("improved_seresnet50, softmax head")
    assert "72 images of 6 patients; stains: HE, PAS" in rows["Training data"]
    assert ("rendered by a program" in rows["Training data"]) == synthetic
    assert rows["Where the images come from"] == "For the author to fill in."
