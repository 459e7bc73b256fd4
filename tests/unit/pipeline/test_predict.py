import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import read_case_folder
from glomerulab.errors import CheckpointError, ConfigError, PredictionsError, RegionError, RunError
from glomerulab.geometry import Box, Region
from glomerulab.images import write_image
from glomerulab.pipeline.crop_plan import Failure
from glomerulab.pipeline.predict import PredictSettings, failure_facts, predict
from glomerulab.reports.case.fhir import case_bundle
from glomerulab.reports.case.view import case_view
from glomerulab.reports.case.write import FORMATS, write_case_reports
from glomerulab.runtime.sealing import write_seal
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.regions.files import read_region_file, read_regions, write_regions
from glomerulab.slides.slide import open_slide
from tests.support.cases import COLOURS, picture
from tests.support.segmenters import disc_slide, write_segmenter


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Two slides of one patient, each with a disc in the colour of two labels."""
    rng = np.random.default_rng(2)
    folder = tmp_path / "slides"
    folder.mkdir()
    lines = ["slide_path,slide_id,patient_id,stain,synthetic"]
    for number in (1, 2):
        pixels = np.full((700, 900, 3), 243, dtype=np.uint8)
        regions = []
        for place, label in enumerate(("normal", "cgn")):
            box = Box(100 + 350 * place, 150, 48, 48)
            pixels[150:198, box.x : box.x + 48] = picture(rng, label)
            name = f"g{number}{place}" if place == 0 else "shared"
            regions.append(Region.from_box(name, box))
        write_pyramid(pixels, folder / f"s{number}.tif", mpp=0.5, compression="deflate")
        write_regions(regions, folder / f"s{number}.geojson")
        lines.append(f"s{number}.tif,s{number},p1,PAS,1")
    (folder / "slides.csv").write_text("\n".join(lines) + "\n")
    return folder


def run_on(slides: Path, trained: Path, out: Path, **settings):
    return predict(
        slides / "slides.csv",
        trained,
        out,
        settings=PredictSettings(slides, margin=0.0, **settings),
    )


def test_slides_become_calls_with_places(slides: Path, trained: Path, tmp_path: Path) -> None:
    done = run_on(slides, trained, tmp_path / "out")
    assert (done.n_images, done.failures) == (4, ())
    case = read_case_folder(tmp_path / "out")
    by_region = {(call.slide_id, call.region_id): call for call in case.calls}
    assert by_region["s1", "g10"].called == {"normal"}
    assert by_region["s2", "shared"].called == {"cgn"}
    call = by_region["s1", "g10"]
    assert call.outline == Box(100, 150, 48, 48).corners()
    assert call.box == Box(100, 150, 48, 48)
    assert (tmp_path / "out" / call.image_path).is_file()
    assert case.facts.is_synthetic
    assert case.facts.slides[0].width == 900
    assert list(case.patients()) == ["p1"]


def test_a_second_run_prints_the_same(slides: Path, trained: Path, tmp_path: Path) -> None:
    run_on(slides, trained, tmp_path / "out")
    first = (tmp_path / "out" / "predictions.csv").read_bytes()
    run_on(slides, trained, tmp_path / "out")
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == first


def test_a_bad_slide_is_named_and_the_others_are_evaluated(slides, trained, tmp_path) -> None:
    (slides / "s1.tif").write_bytes(b"broken")
    done = run_on(slides, trained, tmp_path / "out")
    assert done.n_images == 2
    with (tmp_path / "out" / "failures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["slide"] for row in rows] == ["s1"]


def test_regions_of_another_slide_are_named(slides, trained, tmp_path) -> None:
    write_regions([Region.from_box("far", Box(90000, 90000, 50, 50))], slides / "s1.geojson")
    done = run_on(slides, trained, tmp_path / "out")
    assert "another slide" in done.failures[0].reason


def test_a_manifest_is_evaluated_without_changes(trained: Path, tmp_path: Path) -> None:
    done = predict(trained / "manifest.csv", trained, tmp_path / "out")
    assert done.n_images == 84
    case = read_case_folder(tmp_path / "out" / "predictions.csv")
    right = sum(
        f"i{number}" == call.image_id and call.called == {list(COLOURS)[number % 4]}
        for number, call in enumerate(case.calls)
    )
    assert right > 76


def test_a_truncated_checkpoint_is_refused(own_run: Path, slides, tmp_path) -> None:
    path = next((own_run / "checkpoint").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunError, match="SHA-256") as caught:
        run_on(slides, own_run, tmp_path / "out")
    assert caught.value.where == str(path)


def test_no_readable_image_is_an_error(own_run: Path, tmp_path) -> None:
    (tmp_path / "m.csv").write_text("image_id,image_path\na,missing.png\n")
    with pytest.raises(PredictionsError, match="no image"):
        predict(tmp_path / "m.csv", own_run, tmp_path / "out")


def test_a_stain_absent_from_training_is_referred(slides, trained, tmp_path) -> None:
    table = slides / "slides.csv"
    table.write_text(table.read_text().replace(",PAS,", ",,"))
    run_on(slides, trained, tmp_path / "out", stain="PASM")
    case = read_case_folder(tmp_path / "out")
    assert all("stain_unseen" in call.reasons for call in case.calls)


def test_unstated_stains_are_distinguished_and_counted(slides, trained, tmp_path) -> None:
    table = slides / "slides.csv"
    table.write_text(table.read_text().replace(",PAS,", ",,"))
    done = run_on(slides, trained, tmp_path / "out")
    calls = read_case_folder(tmp_path / "out").calls
    assert all("stain_unknown" in call.reasons for call in calls)
    assert not any("stain_unseen" in call.reasons for call in calls)
    assert done.n_without_stain == len(calls) > 0
    again = run_on(slides, trained, tmp_path / "out", stain="PAS")
    assert again.n_without_stain == 0
    calls = read_case_folder(tmp_path / "out").calls
    assert not any({"stain_unknown", "stain_unseen"}.intersection(call.reasons) for call in calls)


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """A segmenter that knows the glomeruli of these slides by their colour."""
    return write_segmenter(tmp_path / "dots")


def detected(slides: Path, trained: Path, out: Path, detector: Path, **settings):
    settings = PredictSettings(detector=detector, margin=0.0, **settings)
    return predict(slides / "slides.csv", trained, out, settings=settings)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Slides with a glomerulus that is large enough to be one; nothing on the second."""
    folder = tmp_path / "large"
    disc_slide(folder / "s1.tif", [(400, 300, 90), (1100, 600, 110)], mpp=1.0)
    disc_slide(folder / "s2.tif", [], mpp=1.0)
    (folder / "slides.csv").write_text(
        "slide_path,slide_id,patient_id,stain\ns1.tif,s1,p1,PAS\ns2.tif,s2,p1,PAS\n"
    )
    return folder


def test_proposals_are_evaluated_and_marked_as_proposals(
    large, trained, tmp_path, detector
) -> None:
    done = detected(large, trained, tmp_path / "out", detector)
    assert (done.n_images, done.n_proposed, done.failures) == (2, 2, ())
    case = read_case_folder(tmp_path / "out")
    assert all(call.is_proposed for call in case.calls)
    assert case.facts.detector.run == "dots"
    assert "The detector proposed nothing on slide s2." in [note.en for note in case.facts.notes]
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert table["detector_score"].between(0.2, 1).all()
    summary = build_cases(case)[0].summary
    adequacy = next(rule for rule in summary.rules if rule.rule_set.id == "adequacy")
    assert "2 of 2 glomeruli were proposed by a detector" in adequacy.items[0].warnings[-1]["en"]


def test_a_detector_that_hardly_finds_glomeruli_is_told(large, trained, tmp_path) -> None:
    detector = write_segmenter(tmp_path / "poor", more="dice = { glomerulus = 0.07 }")
    detected(large, trained, tmp_path / "out", detector)
    (case,) = build_cases(read_case_folder(tmp_path / "out"))
    assert any("hardly" in note.en and "0.07" in note.en for note in case.notes)
    assert case.structures["glomeruli"].value is None
    assert "0.07" in case.structures["glomeruli"].basis["en"]
    assert case.structures["cortex_mm2"].value.likely == pytest.approx(1.48 * 0.78 * 2, rel=0.02)


def test_proposals_on_two_sections_are_never_taken_for_one(large, trained, tmp_path, detector):
    disc_slide(large / "s2.tif", [(400, 300, 90)], mpp=1.0)
    detected(large, trained, tmp_path / "out", detector)
    summary = build_cases(read_case_folder(tmp_path / "out"))[0].summary
    # The discs may or may not pass for glomeruli; none of the three is taken for another.
    assert (summary.n_images, summary.n_range[1]) == (3, 3)


def test_proposals_keep_their_mark_when_they_come_back_as_regions(
    large, trained, tmp_path, detector
) -> None:
    detected(large, trained, tmp_path / "out", detector)
    regions = read_regions(tmp_path / "out" / "proposals" / "s1.geojson")
    drawn = Region(regions[0].region_id, regions[0].polygon)  # a person took the class off
    (tmp_path / "corrected").mkdir()
    write_regions([drawn, regions[1]], tmp_path / "corrected" / "s1.geojson")
    settings = PredictSettings(tmp_path / "corrected", margin=0.0)
    done = predict(large / "s1.tif", trained, tmp_path / "again", settings=settings)
    assert (done.n_images, done.n_proposed) == (2, 1)


def test_a_failed_first_run_leaves_no_folder(large, trained, tmp_path) -> None:
    settings = PredictSettings(tmp_path / "nowhere.geojson")
    with pytest.raises(RegionError, match="nowhere"):
        predict(large / "s1.tif", trained, tmp_path / "new" / "out", settings=settings)
    assert not (tmp_path / "new").exists()


def test_regions_and_a_detector_exclude_each_other(large, trained, tmp_path) -> None:
    with pytest.raises(ConfigError, match="not both"):
        predict(
            large / "slides.csv",
            trained,
            tmp_path / "out",
            settings=PredictSettings(large, detector=large),
        )


def test_a_detector_in_the_place_of_the_model_is_named(own_run, large, tmp_path) -> None:
    (own_run / "detector.json").write_text("{}")
    write_seal(own_run)
    with pytest.raises(CheckpointError, match="detector of an earlier version"):
        predict(large / "slides.csv", own_run, tmp_path / "out")


def test_tta_changes_the_predictions_and_is_recorded(slides, trained, tmp_path) -> None:
    run_on(slides, trained, tmp_path / "out")
    single = pd.read_csv(tmp_path / "out" / "predictions.csv")
    run_on(slides, trained, tmp_path / "out", symmetries=True)
    meant = pd.read_csv(tmp_path / "out" / "predictions.csv")
    columns = [name for name in single if name.startswith("probability_")]
    assert not np.allclose(single[columns], meant[columns], atol=1e-7)
    np.testing.assert_allclose(single["distance"], meant["distance"], atol=1e-3)
    notes = read_case_folder(tmp_path / "out").facts.notes
    assert any("eight symmetries" in note.en for note in notes)


def test_saliency_pictures_are_beside_the_calls(slides, trained, tmp_path) -> None:
    run_on(slides, trained, tmp_path / "out", saliency=True)
    for call in read_case_folder(tmp_path / "out").calls:
        assert (tmp_path / "out" / call.saliency_path).is_file()
        assert f".{next(iter(call.called))}." in call.saliency_path


def test_saliency_of_an_export_is_refused_before_any_work(own_run, slides, tmp_path) -> None:
    (own_run / "model.onnx").write_bytes(b"")
    write_seal(own_run)
    with pytest.raises(ConfigError, match="no gradients"):
        run_on(slides, own_run, tmp_path / "out", saliency=True)
    assert not (tmp_path / "out").exists()


def test_corrections_saved_over_the_proposals_are_kept(large, trained, tmp_path, detector) -> None:
    detected(large, trained, tmp_path / "out", detector)
    path = tmp_path / "out" / "proposals" / "s1.geojson"
    write_regions(read_regions(path)[:1], path)
    before = path.read_bytes()
    with pytest.raises(RegionError, match="--regions"):
        detected(large, trained, tmp_path / "out", detector)
    assert path.read_bytes() == before


def test_processes_are_started_for_many_images_only(trained, tmp_path, monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr("glomerulab.runtime.parallel.ProcessPoolExecutor", refuse)
    settings = PredictSettings(n_workers=2)
    assert predict(trained / "manifest.csv", trained, tmp_path / "few", settings=settings).n_images
    monkeypatch.setattr("glomerulab.pipeline.predict_inputs.MIN_PARALLEL", 10)
    with pytest.raises(AssertionError, match="a process was started"):
        predict(trained / "manifest.csv", trained, tmp_path / "many", settings=settings)


def test_a_slide_without_mpp_is_reported_as_such_and_not_as_lacking_regions(
    large, trained, tmp_path, detector
) -> None:
    write_image(np.full((300, 400, 3), 200, dtype=np.uint8), large / "s2.png")
    table = large / "slides.csv"
    table.write_text(table.read_text().replace("s2.tif", "s2.png"))
    done = detected(large, trained, tmp_path / "out", detector)
    assert [one.slide for one in done.failures] == ["s2"]
    assert "--mpp-override" in done.failures[0].reason


def test_the_report_of_a_case_names_the_failures(slides, trained, tmp_path) -> None:
    (slides / "s2.tif").write_bytes(b"no slide")
    run_on(slides, trained, tmp_path / "out")
    case = build_cases(read_case_folder(tmp_path / "out"))[0]
    assert case.failures == ("s2",)
    titles = [one.title for one in case_view(case, "en").warnings if one.is_severe]
    assert "1 region, image or slide could not be evaluated" in titles
    texts = [one.text for one in case_view(case, "zh").warnings]
    assert any("s2" in text and "未计入" in text for text in texts)
    assert "Not counted: s2." in case_bundle(case).entry[0].resource.conclusion


EMPTY = '{"type": "FeatureCollection", "features": []}'


def test_a_slide_without_regions_is_a_case_without_glomeruli(slides, trained, tmp_path) -> None:
    (slides / "s1.geojson").write_text(EMPTY)
    out = tmp_path / "out"
    done = predict(
        slides / "s1.tif",
        trained,
        out,
        settings=PredictSettings(slides / "s1.geojson", margin=0.0, saliency=True),
    )
    assert (done.n_images, done.n_referred) == (0, 0)
    assert ["no region for slide" in one.reason for one in done.failures] == [True]
    folder = read_case_folder(out)
    assert folder.calls == ()
    (case,) = build_cases(folder)
    assert [one.slide_id for one in case.slides] == ["s1"]
    adequacy = next(rule for rule in case.summary.rules if rule.rule_set.id == "adequacy")
    assert (adequacy.n_glomeruli, adequacy.items[0].grade.grade) == (0, "inadequate")
    sentences = [one.sentence for one in case_view(case, "en").warnings]
    assert any("No region lies on slide s1: it adds no glomerulus" in one for one in sentences)
    assert not any("not stain-normalised" in one for one in sentences)
    again = predict(
        slides / "s1.tif",
        trained,
        out,
        settings=PredictSettings(slides / "s1.geojson", margin=0.0),
    )
    assert again.n_images == 0


def test_a_patient_without_regions_has_a_report_beside_the_others(slides, trained, tmp_path):
    (slides / "s2.geojson").write_text(EMPTY)
    table = slides / "slides.csv"
    table.write_text(table.read_text().replace("s2.tif,s2,p1", "s2.tif,s2,p2"))
    assert run_on(slides, trained, tmp_path / "out").n_images == 2
    first, second = build_cases(read_case_folder(tmp_path / "out"))
    assert (first.patient, first.summary.n_glomeruli) == ("p1", 2)
    assert (second.patient, second.summary.n_glomeruli) == ("p2", 0)
    assert first.notes != second.notes


def test_without_a_readable_region_file_there_is_no_case(slides, trained, tmp_path) -> None:
    for number in (1, 2):
        (slides / f"s{number}.geojson").write_text("{")
    with pytest.raises(PredictionsError, match="not valid JSON"):
        run_on(slides, trained, tmp_path / "out")
    assert not (tmp_path / "out" / "case.json").exists()


def test_slides_on_which_nothing_is_proposed_are_cases(large, trained, tmp_path, detector) -> None:
    disc_slide(large / "s1.tif", [], mpp=1.0)
    done = detected(large, trained, tmp_path / "out", detector)
    assert (done.n_images, done.failures) == (0, ())
    (case,) = build_cases(read_case_folder(tmp_path / "out"))
    assert (case.patient, len(case.slides), case.summary.n_glomeruli) == ("p1", 2, 0)
    assert "The detector proposed nothing on slide s2." in [note.en for note in case.notes]


def test_a_case_without_glomeruli_is_reported_in_every_format(slides, trained, tmp_path) -> None:
    (slides / "s1.geojson").write_text(EMPTY)
    settings = PredictSettings(slides / "s1.geojson", margin=0.0)
    predict(slides / "s1.tif", trained, tmp_path / "out", settings=settings)
    done = write_case_reports(tmp_path / "out", tmp_path / "reports", formats=FORMATS)
    assert len(done.paths) == 7
    page = (tmp_path / "reports" / "s1.html").read_text(encoding="utf-8")
    assert "No region lies on slide s1" in page


FAILURES = (
    Failure("s1", "g4", "outside the slide"),
    Failure("s2", "", "no slide"),
    Failure("", "crop9", "truncated"),
    Failure("", "crop8", "truncated"),
)


def test_each_failure_belongs_to_a_case() -> None:
    table = pd.DataFrame(
        {"image_id": ["crop9", "crop8"], "slide_id": ["s9", pd.NA], "patient_id": ["p9", pd.NA]}
    )
    found = failure_facts(FAILURES, {"s1": "p1", "s2": None}, SimpleNamespace(table=table))
    assert [(one.case, one.slide_id, one.name) for one in found] == [
        ("p1", "s1", "g4"),
        ("s2", "s2", ""),
        ("p9", "s9", "crop9"),
        ("crop8", "", "crop8"),
    ]


@pytest.mark.parametrize("n_slides", [1, 2])
def test_each_slide_is_opened_and_its_regions_are_parsed_once(
    slides, trained, tmp_path, monkeypatch, n_slides
) -> None:
    opened, parsed = [], []

    def open_counted(path, **options):
        opened.append(path.stem)
        return open_slide(path, **options)

    def read_counted(path, **options):
        parsed.append(path.stem)
        return read_region_file(path, **options)

    monkeypatch.setattr("glomerulab.slides.cutting.open_slide", open_counted)
    monkeypatch.setattr("glomerulab.pipeline.crop_plan.read_region_file", read_counted)
    source = slides / "slides.csv" if n_slides == 2 else slides / "s1.tif"
    settings = PredictSettings(slides, margin=0.0, n_workers=2)
    predict(source, trained, tmp_path / "out", settings=settings)
    assert opened == parsed == ["s1", "s2"][:n_slides]


@pytest.mark.parametrize("min_parallel", [1, 3, 500])
def test_workers_give_the_same_predictions(
    slides, trained, tmp_path, monkeypatch, min_parallel
) -> None:
    run_on(slides, trained, tmp_path / "one")
    monkeypatch.setattr("glomerulab.pipeline.predict_inputs.MIN_PARALLEL", min_parallel)
    run_on(slides, trained, tmp_path / "two", n_workers=2)
    one, two = (tmp_path / name / "predictions.csv" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
