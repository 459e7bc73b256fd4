import pytest

from glomerulab.evaluation.figures.language import figure_names
from glomerulab.evaluation.judgement import judge_run
from glomerulab.evaluation.run_tables import read_run
from glomerulab.report.run_figures import write_run_figures
from tests.run_folders import RunRecipe, write_run


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_every_figure_of_both_heads_has_a_caption_and_two_files(tmp_path, head):
    recipe = RunRecipe(n_patients=8, n_images_per_patient=6, head=head)
    folder = write_run(tmp_path / "run", recipe)
    if head == "sigmoid":
        (folder / "history.csv").unlink()
    judgement = judge_run(read_run(folder))
    names = figure_names(judgement.run.taxonomy)
    figures = write_run_figures(judgement, names, tmp_path)
    shown = [number for number in (9, 10, 11) if any(f"Fig. {number} " in f.title for f in figures)]
    assert shown == ([9, 10, 11] if head == "softmax" else [10, 11])  # no history, no curves
    assert all(figure.caption and figure.uri.startswith("data:image/svg") for figure in figures)
    assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.svg"))) == len(figures)
