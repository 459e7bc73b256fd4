import pytest
from tests.run_folders import RunRecipe, write_run

from glomerulab.errors import PredictionsError
from glomerulab.report.run_report import write_run_report


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", RunRecipe(n_patients=8, n_images_per_patient=6))


def test_the_report_returns_what_it_wrote(run):
    report = write_run_report(run, split="validation")
    assert report.html_path == run / "report.html"
    assert report.headline in report.html_path.read_text(encoding="utf-8")
    assert report.judgement.scores["value"].notna().any()


def test_a_part_that_is_not_there_writes_nothing(run):
    with pytest.raises(PredictionsError, match="'external'"):
        write_run_report(run, split="external")
    assert not (run / "report.html").exists()
    assert not (run / "scores.csv").exists()
