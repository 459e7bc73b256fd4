"""Every step takes what the step before wrote: the chains of commands that people try."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from glomerulab.apps.annotation.store.database import open_store
from glomerulab.apps.review.app import create_app
from glomerulab.apps.review.review_session import ReviewSession
from glomerulab.cases.case_folder import read_case_folder
from glomerulab.cli.main import app
from glomerulab.cohort.manifest import read_manifest
from glomerulab.predictions import read_predictions
from tests.support.annotation_studies import CRESCENT, NORMAL, SCLEROSIS, save

LABELS = (NORMAL, {**NORMAL, "normal": 0, "mspgn": 1}, SCLEROSIS, CRESCENT)
EVERY_FORMAT = "html,pdf,csv,geojson,dicom-sr,fhir"
SMALL = (
    *("--set", "epochs=1", "--set", "batch_size=8", "--set", "precision=float32"),
    *("--set", "model.name=improved_seresnet_small", "--set", "model.input_size=32"),
)


def ok(*arguments: object) -> str:
    """Run a command that must end with exit code 0, and return what it printed."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    command = " ".join(map(str, arguments))
    assert done.exit_code == 0, f"{command}: {done.exception} {done.output}"
    return done.output


def train(manifest: Path, out: Path, *options: object) -> Path:
    ok("train", "configs/network.toml", "--manifest", manifest, "--out", out, *SMALL, *options)
    return out


def normalize(manifest: Path, out: Path) -> Path:
    """Normalise to the first image of each stain, of the training part where there is one."""
    cohort = read_manifest(manifest)
    cohort = cohort.part("train") if cohort.table["split"].notna().any() else cohort
    stains = cohort.table["stain"].tolist()
    targets = [f"{one}={cohort.image_paths()[stains.index(one)]}" for one in sorted(set(stains))]
    options = [option for target in targets for option in ("--target", target)]
    ok("normalize", manifest, "--out", out, *options)
    ok("manifest", "check", out / "manifest.csv")
    return out / "manifest.csv"


@pytest.fixture(scope="module", autouse=True)
def _from_the_repository() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[2])
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chains")


@pytest.fixture(scope="module")
def crops(folder: Path) -> Path:
    ok("phantom", "--out", folder / "ph", "--patients", 6, "--per-patient", 4, "--size", 64)
    return folder / "ph" / "manifest.csv"


@pytest.fixture(scope="module")
def slides(folder: Path) -> Path:
    small = ("--patients", 3, "--per-patient", 4, "--mpp", 2, "--stains", "HE")
    ok("phantom", "--slides", "--out", folder / "slides", *small)
    return folder / "slides"


@pytest.fixture(scope="module")
def run(folder: Path, crops: Path) -> Path:
    """A run that came the documented way: split, normalise, augment, train."""
    ok("manifest", "check", crops)
    ok("split", crops, "--out", folder / "ph" / "split.csv", "--no-near-duplicates")
    normalized = normalize(folder / "ph" / "split.csv", folder / "normalized")
    n = len(read_manifest(normalized).part("train").table)
    ok("augment", normalized, "--to", n + 3, "--out", folder / "more")
    ok("manifest", "check", folder / "more" / "manifest.csv")
    return train(folder / "more" / "manifest.csv", folder / "run")


@pytest.fixture(scope="module")
def predictions(folder: Path, run: Path, crops: Path) -> Path:
    ok("predict", crops, "--model", run, "--out", folder / "calls")
    return folder / "calls"


def check_case_steps(predictions: Path) -> None:
    """Report a patient in every format, correct a call, and report all."""
    case = read_case_folder(predictions)
    ok("report", predictions, "--format", EVERY_FORMAT, "--patient", next(iter(case.patients())))
    image = case.calls[0].image_id
    ok("override", predictions, image, "--labels", "cgn", "--by", "Dr Li", "--reason", "seen")
    ok("report", predictions, "--format", "html,csv,geojson,fhir", "--language", "zh")


def test_phantom_crops_are_trained_on_and_evaluated(run: Path) -> None:
    ok("evaluate", run)
    assert (run / "report.html").is_file()


def test_phantom_crops_without_a_place_are_predicted_and_reported(predictions: Path) -> None:
    assert read_case_folder(predictions).calls[0].box is None
    check_case_steps(predictions)


def test_a_review_continues_what_the_command_line_corrected(
    predictions: Path, folder: Path
) -> None:
    copy = Path(shutil.copytree(predictions, folder / "reviewed"))
    image = read_case_folder(copy).calls[0].image_id
    ok("override", copy, image, "--labels", "cgn", "--by", "Dr Li", "--reason", "seen")
    client = TestClient(
        create_app(ReviewSession(copy), secret="of-this-test", language="en"),
        base_url="http://127.0.0.1/of-this-test/",
    )
    page = client.get("")
    assert page.status_code == 200
    assert "p001" in page.text


def test_tables_that_a_german_spreadsheet_saved_go_on(
    predictions: Path, folder: Path, crops: Path, run: Path
) -> None:
    def save_again(path: Path, **changes: str) -> None:
        table = pd.read_csv(path, dtype={"image_id": str})
        table.to_csv(path, sep=";", decimal=",", index=False, **changes)

    copy = Path(shutil.copytree(predictions, folder / "saved again"))
    save_again(copy / "predictions.csv", encoding="utf-16")
    check_case_steps(copy)
    manifest = crops.with_name("saved again.csv")
    shutil.copy(crops, manifest)
    save_again(manifest, encoding="utf-8-sig", lineterminator="\r\n")
    ok("manifest", "check", manifest)
    ok("predict", manifest, "--model", run, "--out", folder / "calls of saved again")
    assert len(read_case_folder(folder / "calls of saved again").calls) == 24


def test_calls_are_evaluated_as_any_predictions_table(predictions: Path, run: Path) -> None:
    taxonomy = read_manifest(run / "manifest.csv").taxonomy
    assert len(read_predictions(predictions / "predictions.csv", taxonomy)) == 24


@pytest.mark.slow
def test_an_external_set_is_evaluated(run: Path, crops: Path) -> None:
    ok("evaluate", run, "--on", crops)
    assert list((run / "external").glob("*/report.html"))


def test_a_run_is_explained(run: Path, folder: Path, crops: Path) -> None:
    ok("explain", run, crops, "--out", folder / "why", "--sanity", 0, "--method", "grad-cam")
    assert pd.read_csv(folder / "why" / "explanations.csv")["image_id"].nunique() == 24


@pytest.mark.slow
def test_an_exported_model_predicts(run: Path, folder: Path, crops: Path) -> None:
    ok("export", run, "--out", folder / "onnx")
    ok("predict", crops, "--model", folder / "onnx", "--out", folder / "onnx calls")
    check_case_steps(folder / "onnx calls")
    assert len(read_case_folder(folder / "onnx calls").calls) == 24


def test_normalised_images_are_compared_and_shown(run: Path, folder: Path) -> None:
    normalized = folder / "normalized" / "manifest.csv"
    ok("stain-check", folder / "ph" / "split.csv", normalized, "--out", folder / "stains")
    ok("manifest", "contact-sheet", folder / "more" / "manifest.csv", "--out", folder / "s.png")
    assert (folder / "s.png").stat().st_size > 0
    assert list((folder / "stains").glob("*.html"))


@pytest.mark.slow
def test_slides_are_extracted_normalised_split_and_trained_on(slides: Path, folder: Path) -> None:
    out = folder / "extracted"
    ok("extract", slides / "slides.csv", "--regions", slides / "regions", "--out", out, "--mpp", 2)
    ok("manifest", "check", out / "manifest.csv")
    normalize(out / "manifest.csv", folder / "extracted n")
    ok(
        *("split", folder / "extracted n" / "manifest.csv", "--out", folder / "extracted n/s.csv"),
        *("--ratios", "2:1:0", "--no-near-duplicates"),
    )
    run = train(folder / "extracted n" / "s.csv", folder / "run of slides")
    ok("evaluate", run, "--split", "validation")
    assert (run / "report.html").is_file()


def test_slides_are_predicted_reported_and_their_regions_extracted_again(
    slides: Path, run: Path, folder: Path
) -> None:
    out = folder / "slide calls"
    given = ("--regions", slides / "regions")
    ok("predict", slides / "slides.csv", "--model", run, "--out", out, *given)
    check_case_steps(out)
    ok("manifest", "check", out / "cut" / "manifest.csv")
    found = sorted((out / "reports").glob("*.geojson"))
    assert found
    slide = next((slides / "slides").iterdir())
    written = next(path for path in found if slide.stem in path.name)
    again = ("--regions", written, "--out", folder / "again", "--mpp", 2)
    ok("extract", slide, *again)
    ok("predict", slide, "--model", run, "--out", folder / "again calls", "--regions", written)
    ok("report", folder / "again calls", "--format", "csv")


def test_images_of_which_nothing_is_known_are_predicted_and_reported(
    run: Path, folder: Path, crops: Path
) -> None:
    table = pd.read_csv(crops)[["image_id", "image_path"]].head(2)
    table.to_csv(crops.parent / "bare.csv", index=False)
    ok(
        "predict",
        crops.parent / "bare.csv",
        "--model",
        run,
        "--out",
        folder / "bare",
        "--stain",
        "HE",
    )
    check_case_steps(folder / "bare")
    assert len(read_case_folder(folder / "bare").calls) == 2


def test_a_flat_folder_is_imported_predicted_and_reported(
    run: Path, folder: Path, crops: Path
) -> None:
    images = folder / "flat"
    images.mkdir()
    for path in sorted((crops.parent / "images").iterdir())[:2]:
        shutil.copy(path, images)
    ok("manifest", "import", images, "--out", folder / "flat.csv", "--set", "stain=PAS")
    ok("manifest", "check", folder / "flat.csv")
    ok("predict", folder / "flat.csv", "--model", run, "--out", folder / "flat calls")
    check_case_steps(folder / "flat calls")
    assert len(read_case_folder(folder / "flat calls").calls) == 2


def test_a_split_by_image_is_trained_on_where_patients_are_not_known(
    folder: Path, crops: Path
) -> None:
    table = (
        pd.read_csv(crops)
        .head(20)
        .drop(columns=["patient_id", "slide_id", "mpp", "width", "height"])
    )
    table.to_csv(crops.parent / "anonymous.csv", index=False)
    out = crops.parent / "by image.csv"
    ok(
        "split",
        crops.parent / "anonymous.csv",
        "--by",
        "image",
        "--out",
        out,
        "--no-near-duplicates",
    )
    ok("manifest", "check", out, "--allow-shared-patients")
    run = train(out, folder / "run by image", "--set", "allow_image_level_split=true")
    ok("evaluate", run)
    ok("predict", out, "--model", run, "--out", folder / "by image calls")
    check_case_steps(folder / "by image calls")
    assert len(read_case_folder(folder / "by image calls").calls) == 20


def test_labels_of_readers_are_exported_checked_split_and_trained_on(
    folder: Path, crops: Path, run: Path
) -> None:
    (folder / "password").write_text("a long enough password\n")
    password = ("--password-file", folder / "password")
    study = folder / "study.db"
    ok("annotate", "create", study, "--manifest", crops, "--repeat", 0, "--readers", 1, *password)
    ok("annotate", "add-annotator", study, "anna", "--name", "Dr Anna", *password)
    ok("annotate", "distribute", study)
    with open_store(study) as store:
        for number, image_id in enumerate(read_manifest(crops).table["image_id"]):
            save(store, "anna", image_id, LABELS[number % 4])
    labels = folder / "labels" / "labels.csv"
    labels.parent.mkdir()
    ok("annotate", "export", study, "--out", labels)
    ok("manifest", "check", labels)
    ok("annotate", "export", study, "--what", "soft", "--out", labels.with_name("soft.csv"))
    ok("manifest", "check", labels.with_name("soft.csv"))
    split = labels.with_name("split.csv")
    ok("split", labels, "--out", split, "--no-near-duplicates")
    train(split, folder / "run of readers")
    ok("annotate", "export", study, "--out", labels.with_suffix(".json"))
    images = ("--image-root", crops.parent)
    ok("manifest", "import", labels.with_suffix(".json"), "--out", folder / "from.csv", *images)
    ok("annotate", "import", study, "--model", run / "predictions.csv", "--head", "softmax")
    ok("annotate", "import", study, "--images", split)
    ok("annotate", "export", study, "--out", labels.with_suffix(".parquet"))
    ok("split", labels.with_suffix(".parquet"), "--out", split, "--folds", 2)
    assert sorted(read_manifest(split).table["fold"].unique()) == [0, 1]
