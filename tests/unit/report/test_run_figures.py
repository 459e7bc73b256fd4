import pytest
from tests.run_folders import RunRecipe, write_run

from glomerulab.evaluation.judgement import judge_run
from glomerulab.evaluation.run_tables import read_run
from glomerulab.report.run_figures import write_run_figures


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_the_figures_of_the_paper_are_drawn_for_both_heads(tmp_path, head):
    recipe = RunRecipe(n_patients=8, n_images_per_patient=6, head=head)
    judgement = judge_run(read_run(write_run(tmp_path / "run", recipe)))
    figures = write_run_figures(judgement, tmp_path)
    titles = " ".join(figure.title for figure in figures)
    for number in (9, 10, 11):
        assert f"as Fig. {number} of the paper" in titles
    assert all(figure.caption and figure.uri.startswith("data:image/svg") for figure in figures)


def test_a_run_without_history_has_no_learning_curves(tmp_path):
    run_folder = write_run(tmp_path / "run", RunRecipe(n_patients=8, n_images_per_patient=6))
    (run_folder / "history.csv").unlink()
    write_run_figures(judge_run(read_run(run_folder)), tmp_path)
    assert not (tmp_path / "learning_curves.svg").exists()
    assert (tmp_path / "roc.svg").exists()
