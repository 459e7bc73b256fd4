import pytest

from glomerulab.errors import PredictionsError
from glomerulab.report.run_report import write_run_report
from tests.run_folders import RunRecipe, write_run


def test_a_part_that_is_not_there_writes_nothing(tmp_path):
    run = write_run(tmp_path / "run", RunRecipe(n_patients=8, n_images_per_patient=6))
    before = {path.name for path in run.iterdir()}
    with pytest.raises(PredictionsError, match="'external'"):
        write_run_report(run, split="external")
    assert {path.name for path in run.iterdir()} == before
