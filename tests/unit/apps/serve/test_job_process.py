import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glomerulab.apps.serve.job_process import JobTask, run_job
from glomerulab.apps.serve.job_records import JobFolder, JobRequest
from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import read_case_folder
from glomerulab.inference.detector import open_detector
from glomerulab.reports.references import read_references
from tests.support.result_pages import write_references
from tests.support.segmenters import ALL_STRUCTURES, disc_slide, write_segmenter
from tests.support.served_models import write_slide


@pytest.fixture
def task(trained: Path, tmp_path: Path):
    """Make a task of some slides."""

    def make(*names: str, regions: str | None = ".", **request) -> JobTask:
        folder = JobFolder(tmp_path / "job")
        folder.make()
        slides = [name if isinstance(name, dict) else {"path": name} for name in names]
        parsed = JobRequest.model_validate({"slides": slides, "regions": regions, **request})
        return JobTask(folder.path, parsed, trained, tmp_path / "slides", 1)

    write_slide(tmp_path / "slides")
    return make


def test_slides_become_predictions_and_a_report(task, tmp_path):
    write_slide(tmp_path / "slides", "s2", n=3)
    for name in ("s1", "s2"):
        (tmp_path / "slides" / "regions").mkdir(exist_ok=True)
        (tmp_path / "slides" / f"{name}.geojson").rename(
            tmp_path / "slides" / "regions" / f"{name}.geojson"
        )
    slides = ({"path": "s1.tif", "stain": "PAS"}, {"path": "s2.tif", "stain": "PAS"})
    job = task(*slides, regions="regions", patient="p1", language="zh")
    run_job(job)
    folder = JobFolder(job.folder)
    outcome = folder.read_outcome()
    assert (outcome.error, outcome.n_images, outcome.n_failures) == (None, 5, 0)
    case = read_case_folder(folder.result)
    assert {call.patient_id for call in case.calls} == {"p1"}
    assert {call.stain for call in case.calls} == {"PAS"}
    assert "仅供研究" in (folder.result / "reports" / "p1.html").read_text(encoding="utf-8")
    assert folder.read_progress().stage == "Writing reports"
    with zipfile.ZipFile(folder.result / "result.zip") as archive:
        assert "predictions.csv" in archive.namelist()


def test_the_report_of_a_job_shows_the_studys_pictures_of_labels(task, tmp_path):
    references = write_references(tmp_path / "references", "cgn")
    job = replace(task("s1.tif", regions="s1.geojson"), references=references)
    run_job(job)
    folder = JobFolder(job.folder)
    assert folder.read_outcome().error is None
    (report,) = (folder.result / "reports").glob("*.html")
    assert read_references(references, ["cgn"])["cgn"] in report.read_text(encoding="utf-8")


def test_a_job_refuses_another_model_than_the_server_loaded(task):
    job = replace(task("s1.tif", regions="s1.geojson"), fingerprint="of another model")
    run_job(job)
    assert "restart the server" in JobFolder(job.folder).read_outcome().error


@pytest.fixture
def detecting(task, tmp_path: Path) -> JobTask:
    """A task that names no regions, of a server with a segmenter."""
    disc_slide(tmp_path / "slides" / "d.tif", [(300, 200, 90), (620, 260, 70)], size=(900, 500))
    segmenter = write_segmenter(tmp_path / "segmenter")
    sha = open_detector(segmenter).facts.weights_sha256
    job = task({"path": "d.tif", "stain": "PAS"}, regions=None, detect=True)
    return replace(job, detector=segmenter, detector_sha256=sha)


def test_a_job_without_regions_has_the_glomeruli_outlined(detecting) -> None:
    run_job(detecting)
    folder = JobFolder(detecting.folder)
    outcome = folder.read_outcome()
    assert (outcome.error, outcome.n_images, outcome.n_failures) == (None, 2, 0)
    case = read_case_folder(folder.result)
    assert all(call.is_proposed for call in case.calls)
    assert case.facts.detector.run == "segmenter"


def test_a_job_that_detects_gives_t_and_the_other_counts(detecting, tmp_path) -> None:
    segmenter = write_segmenter(tmp_path / "segmenter", structures=ALL_STRUCTURES)
    sha = open_detector(segmenter).facts.weights_sha256
    run_job(replace(detecting, detector_sha256=sha))
    result = JobFolder(detecting.folder).result
    (case,) = build_cases(read_case_folder(result))
    disc_mm2, tissue_mm2 = np.pi * (90**2 + 70**2) / 1e6, 780 * 380 / 1e6
    assert case.structures["fibrosis"].value.likely == pytest.approx(
        disc_mm2 / tissue_mm2, rel=0.02
    )
    grades = {one.item.id: one.grade for rules in case.summary.rules for one in rules.items}
    assert grades["T"].grade == "T0"
    assert grades["arteries"].grade == "adequate"
    report = next((result / "reports").glob("*.html")).read_text(encoding="utf-8")
    assert "Cortex and tissue" in report
    with zipfile.ZipFile(result / "result.zip") as archive:
        assert any(name.endswith("summary.json") for name in archive.namelist())


def test_a_job_refuses_another_segmenter_than_the_server_loaded(detecting, tmp_path) -> None:
    run_job(replace(detecting, detector_sha256="of another"))
    error = JobFolder(detecting.folder).read_outcome().error
    assert "restart the server" in error
    assert str(tmp_path) not in error
    run_job(replace(detecting, detector=None))
    assert "--detector" in JobFolder(detecting.folder).read_outcome().error


def test_an_unpacked_result_can_be_reported_again(task, tmp_path):
    from glomerulab.reports.case.write import write_case_reports

    job = task("s1.tif", regions="s1.geojson")
    run_job(job)
    with zipfile.ZipFile(job.folder / "result" / "result.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    done = write_case_reports(tmp_path / "unpacked", tmp_path / "again", formats=["html", "csv"])
    assert len(done.paths) == 3


@pytest.mark.parametrize(
    ("slide", "regions", "expected"),
    [
        ("s1.tif", "far.geojson", "region 'far' of s1: the region lies outside the slide"),
        ("plain.png", "plain.geojson", "give them with `mpp` of the slide"),
        ("broken.tif", "s1.geojson", "no image could be classified"),
        ("../secret.tif", "s1.geojson", "relative to the slides folder"),
        ("nowhere.tif", "s1.geojson", "there is no nowhere.tif"),
    ],
)
def test_an_impossible_job_reports_its_reason_without_a_path(
    task, tmp_path, slide, regions, expected
):
    from glomerulab.geometry import Box, Region
    from glomerulab.slides.regions.files import write_regions

    slides = tmp_path / "slides"
    write_slide(slides, "plain", mpp=None)
    (slides / "broken.tif").write_bytes(b"II*\0broken")
    write_regions([Region.from_box("far", Box(90_000, 90_000, 50, 50))], slides / "far.geojson")
    job = task(slide, regions=regions)
    run_job(job)
    error = JobFolder(job.folder).read_outcome().error
    assert expected in error
    assert str(tmp_path) not in error
    assert "slides.csv" not in error
    assert "--" not in error  # options of the command line are no fields of a request


def test_a_slide_without_mpp_is_evaluated_when_the_request_gives_it(task, tmp_path):
    write_slide(tmp_path / "slides", "plain", mpp=None)
    job = task({"path": "plain.png", "mpp": 0.5}, regions="plain.geojson")
    run_job(job)
    assert JobFolder(job.folder).read_outcome().n_images == 2


def test_notes_name_the_fields_of_a_request(task, tmp_path):
    job = task({"path": "s1.tif", "mpp": 0.1}, regions="s1.geojson")
    run_job(job)
    content = (job.folder / "result" / "case.json").read_text(encoding="utf-8")
    assert "`mpp` of the slide" in content
    assert "--" not in content


def test_a_scale_that_contradicts_the_slide_is_a_warning_of_the_job(task, tmp_path):
    job = task({"path": "s1.tif", "mpp": 5.0}, regions="s1.geojson")
    run_job(job)
    warnings = JobFolder(job.folder).read_outcome().warnings
    assert any("s1" in one and "5 was given" in one for one in warnings)
    assert not any("--" in one for one in warnings)
    job = task({"path": "s1.tif"}, regions="s1.geojson")
    run_job(job)
    assert not any("was given" in one for one in JobFolder(job.folder).read_outcome().warnings)


def test_failures_are_listed_without_a_server_path(task, tmp_path):
    from glomerulab.geometry import Box, Region
    from glomerulab.slides.regions.files import read_regions, write_regions

    path = tmp_path / "slides" / "s1.geojson"
    regions = [*read_regions(path), Region.from_box("far", Box(90_000, 90_000, 50, 50))]
    write_regions(regions, path)
    job = task("s1.tif", regions="s1.geojson")
    run_job(job)
    assert JobFolder(job.folder).read_outcome().n_failures == 1
    failures = (job.folder / "result" / "failures.csv").read_text()
    assert "outside the slide" in failures
    assert str(tmp_path) not in failures


def test_an_interrupted_job_is_resumed(task):
    job = task("s1.tif", regions="s1.geojson")
    run_job(job)
    answers = (job.folder / "result" / "answers.jsonl").read_text()
    first = (job.folder / "result" / "predictions.csv").read_bytes()
    (job.folder / "result" / "predictions.csv").unlink()
    (job.folder / "result" / "case.json").unlink()
    run_job(job)
    assert (job.folder / "result" / "predictions.csv").read_bytes() == first
    again = (job.folder / "result" / "answers.jsonl").read_text()
    assert again.split() == answers.split()
