from glomerulab.evaluation.result import evaluate_run
from glomerulab.evaluation.run_tables import EXTERNAL, read_run, with_external_set
from glomerulab.reports.run.external_tables import external_tables
from glomerulab.reports.run.score_tables import score_of
from tests.support.run_folders import RunRecipe, write_run


def test_each_score_stands_beside_itself(tmp_path):
    run = read_run(write_run(tmp_path / "a", RunRecipe(n_patients=10, n_images_per_patient=6)))
    other = read_run(write_run(tmp_path / "b", RunRecipe(n_patients=5, skill=0.5, seed=3)))
    both = with_external_set(run, other.predictions, other.manifest)
    inside, outside = evaluate_run(run), evaluate_run(both, split=EXTERNAL)
    overall, by_label = external_tables(inside, outside)
    accuracy = next(row for row in overall.rows if row[0] == "Accuracy")
    for cell, one in zip(accuracy[1:], (inside, outside), strict=True):
        assert cell.startswith(f"{score_of(one.scores, 'accuracy')['value']:.3f}\n")
    crescent = next(row for row in by_label.rows if row[0] == "Crescent")
    first, second = crescent[2].split("\n")
    assert first.startswith(f"{score_of(inside.scores, 'recall', 'cgn')['value']:.3f}")
    assert second.startswith(f"{score_of(outside.scores, 'recall', 'cgn')['value']:.3f}")
    assert crescent[1] == f"{inside.eval_set.n_positive[3]} / {outside.eval_set.n_positive[3]}"
