"""`evaluate` with a checkpoint: features, saliency of the errors, near-duplicates, external set."""

import json
import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from glomerulab.cli.main import app
from glomerulab.cohort.manifest import read_manifest
from glomerulab.inference.image_predictions import predict_manifest
from glomerulab.pipeline.evaluate import analyse_images
from tests.support.untrained_runs import write_two_cohorts, write_untrained_run


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return write_two_cohorts(tmp_path_factory.mktemp("cohorts"))


@pytest.fixture
def run(cohorts, tmp_path):
    return write_untrained_run(tmp_path / "run", cohorts[0])


def _evaluate(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_the_report_shows_features_saliency_and_subgroups(run):
    result = _evaluate(run, "--by", "site")
    assert result.exit_code == 0, result.output
    places = pd.read_csv(run / "figures" / "embedding.csv")
    predictions = pd.read_csv(run / "predictions.csv")
    in_test = set(predictions.loc[predictions["split"] == "test", "image_id"])
    assert set(places["image_id"]) <= in_test
    assert len(places) >= 10
    overlays = list((run / "explanations" / "overlays").glob("*.occlusion.png"))
    page = (run / "report.html").read_text(encoding="utf-8")
    assert 1 <= len(overlays) <= 12
    assert page.count("<span>map: ") == len(overlays)
    assert "By site" in page
    assert "Not sealed" not in page
    assert "Near-duplicates" not in page


def test_an_external_set_is_shown_beside_the_own_split(run, cohorts):
    result = _evaluate(run, "--on", cohorts[1])
    assert result.exit_code == 0, result.output
    assert "external images of 3 patients" in result.output
    place = run / "external" / "other-manifest"
    scores = pd.read_csv(place / "scores.csv")
    beside = json.loads((run / "scores.json").read_text(encoding="utf-8"))["external"]
    outside = scores.loc[scores["score"] == "accuracy", "value"].item()
    assert beside["scores"][0]["value"] == pytest.approx(outside)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Internal and external, side by side" in page
    assert f"{outside:.3f}" in page
    assert "External set: ROC curves" in page
    # Both phantoms use the same patient numbers, which must be reported.
    assert "External set shares patients" in page
    assert "No external set" not in page
    predicted = pd.read_csv(place / "predictions.csv")
    expected = predict_manifest(run, read_manifest(cohorts[1])).table
    assert predicted["probability_cgn"].to_numpy() == pytest.approx(expected["probability_cgn"])
    assert (place / "report.html").is_file()


def test_a_copied_picture_in_another_split_or_in_the_external_set_is_found(run, cohorts, tmp_path):
    manifest = read_manifest(cohorts[0])
    paths = dict(zip(manifest.table["split"], manifest.image_paths(), strict=True))
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(paths["train"], outside / "copy.png")
    rows = pd.read_csv(cohorts[1], dtype=str).head(4)
    rows["image_path"] = [str(cohorts[1].parent / path) for path in rows["image_path"]]
    rows.loc[0, "image_path"] = "copy.png"
    rows.to_csv(outside / "manifest.csv", index=False)
    result = _evaluate(run, "--on", outside / "manifest.csv")
    assert result.exit_code == 0, result.output
    assert "External set shares images" in result.output
    for page in (run / "report.html", run / "external" / "outside-manifest" / "report.html"):
        assert "External set shares images" in page.read_text(encoding="utf-8")


def test_an_external_image_that_cannot_be_read_is_named_and_the_rest_evaluated(
    run, cohorts, tmp_path
):
    rows = pd.read_csv(cohorts[1], dtype=str)
    rows["image_path"] = [str(cohorts[1].parent / path) for path in rows["image_path"]]
    rows.loc[2, "image_path"] = "gone.png"
    rows.to_csv(tmp_path / "manifest.csv", index=False)
    result = _evaluate(run, "--on", tmp_path / "manifest.csv")
    assert result.exit_code == 1
    assert "gone.png" in result.output
    assert "Images not evaluated" in next(run.glob("external/*/report.html")).read_text("utf-8")


def test_a_run_without_its_checkpoint_names_the_way_out(run):
    shutil.rmtree(run / "checkpoint")
    (run / "seal.json").unlink()
    message = str(_evaluate(run).exception)
    assert "the checkpoint is missing" in message
    assert "--tables-only" in message
    assert _evaluate(run, "--tables-only").exit_code == 0


def test_a_wrong_split_is_refused_before_an_image_is_opened(run):
    path = run / "manifest.csv"  # everything after the check needs its images
    path.write_text(path.read_text().replace(".png", ".gone.png"))
    (run / "seal.json").unlink()
    message = str(_evaluate(run, "--split", "tset").exception)
    assert "'tset'" in message
    assert "did you mean 'test'" in message


def test_altered_weights_are_named(run):
    weights = next((run / "checkpoint").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"0000")
    assert weights.name in str(_evaluate(run).exception)


def test_wrong_usage_is_an_error(run, cohorts):
    assert "one run folder" in _evaluate(run, run, "--on", cohorts[1]).output
    assert "checkpoint" in _evaluate(run, "--tables-only", "--on", cohorts[1]).output
    assert "own manifest" in _evaluate(run, "--on", run / "manifest.csv").output
    message = str(_evaluate(run, "--tables-only", "--by", "ward").exception)
    assert "no column ward" in message


def test_images_that_cannot_be_read_are_named_on_the_page_with_what_it_lacks(run):
    manifest = read_manifest(run / "manifest.csv")
    test = manifest.part("test")
    gone = test.image_paths()[0]
    hidden = gone.rename(gone.with_suffix(".away"))
    try:
        found = analyse_images(run)
    finally:
        hidden.rename(gone)
    (first, *_) = found.warnings()
    assert first.title == "Images not shown"
    assert f"1 of {len(test.table)} images of the test split" in first.text
    assert str(test.table["image_id"].iloc[0]) in first.text
