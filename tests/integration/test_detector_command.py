from pathlib import Path

import pandas as pd
import pytest

from glomerulab.inference.detector import open_detector
from glomerulab.slides.regions.files import read_regions, write_regions
from glomerulab.slides.regions.polygons import overlap
from glomerulab.slides.regions.proposals import is_proposal
from tests.support.annotation_studies import image_manifest
from tests.support.command_line import Run
from tests.support.detecting import disc_slide
from tests.support.model_runs import train_small_run

MPP = 4.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five patients whose glomeruli are dark discs of 80 to 100 µm radius."""
    home = tmp_path_factory.mktemp("detector")
    (home / "regions").mkdir()
    lines = ["slide_path,slide_id,patient_id,stain,synthetic"]
    for n in range(5):
        discs = [(120 + 20 * n, 130, 22 + n % 3), (330, 150 + 10 * n, 25), (230, 90, 20)]
        regions = disc_slide(home / f"s{n}.tif", discs, size=(460, 280), mpp=MPP)
        write_regions(regions, home / "regions" / f"s{n}.geojson")
        lines.append(f"s{n}.tif,s{n},p{n},PAS,1")
    (home / "slides.csv").write_text("\n".join(lines) + "\n")
    return home


def test_from_drawn_slides_to_corrected_proposals(home: Path, run: Run, tmp_path: Path) -> None:
    arguments = (
        "train-detector",
        home / "slides.csv",
        "--regions",
        home / "regions",
        "--out",
        tmp_path / "detector",
        "--set",
        "epochs=6",
        "--set",
        "model.input_size=32",
        "--set",
        "optimizer.learning_rate=5e-3",
    )
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "On 1 synthetic slides of 1 patients it never saw" in done.stdout
    weights = open_detector(tmp_path / "detector").card.weights_sha256
    again = run(*arguments)  # continues: nothing is trained anew
    assert again.returncode == 0, again.stderr
    assert open_detector(tmp_path / "detector").card.weights_sha256 == weights

    model = train_small_run(tmp_path / "model")
    evaluated = run(
        "predict",
        home / "slides.csv",
        "--model",
        model,
        "--detect",
        tmp_path / "detector",
        "--out",
        tmp_path / "out",
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert "regions were proposed by a detector, not drawn by a person" in evaluated.stdout
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert (table["proposed"] == 1).all()
    proposals = read_regions(tmp_path / "out" / "proposals" / "s3.geojson")
    drawn = read_regions(home / "regions" / "s3.geojson")
    found = [max(overlap(a.polygon, b.polygon) for b in proposals) > 0.5 for a in drawn]
    assert sum(found) >= 2

    report = run("report", tmp_path / "out", "--format", "html,csv")
    assert report.returncode == 0, report.stderr
    page = next((tmp_path / "out").rglob("p3.html")).read_text(encoding="utf-8")
    assert "regions were proposed by a detector" in page

    # A study takes the proposals; what a person draws anew there is no proposal any more.
    manifest = image_manifest(2, folder=tmp_path)
    manifest.table.to_csv(tmp_path / "manifest.csv", index=False)
    (tmp_path / "password").write_text("a long enough password\n")
    study, secret = tmp_path / "study.db", ("--password-file", tmp_path / "password")
    run("annotate", "create", study, "--manifest", tmp_path / "manifest.csv", *secret)
    run("annotate", "add-annotator", study, "anna", "--name", "Dr Anna", *secret)
    imported = run(
        "annotate",
        "import",
        study,
        "--regions",
        tmp_path / "out" / "proposals" / "s3.geojson",
        "--slide",
        home / "s3.tif",
        "--annotator",
        "anna",
    )
    assert f"{len(proposals)} regions of anna" in imported.stdout, imported.stderr
    run(
        "annotate",
        "export",
        study,
        "--what",
        "regions",
        "--slide",
        home / "s3.tif",
        "--out",
        tmp_path / "back.geojson",
    )
    back = read_regions(tmp_path / "back.geojson")
    assert len(back) == len(proposals)
    assert all(is_proposal(region) for region in back)


def test_two_patients_cannot_be_split_in_three(home: Path, run: Run, tmp_path: Path) -> None:
    text = (home / "slides.csv").read_text().replace("s0.tif", str(home / "s0.tif"))
    lines = text.replace("s1.tif", str(home / "s1.tif")).splitlines()[:3]
    (tmp_path / "two.csv").write_text("\n".join(lines) + "\n")
    done = run(
        "train-detector",
        tmp_path / "two.csv",
        "--regions",
        home / "regions",
        "--out",
        tmp_path / "out",
    )
    assert done.returncode == 1
    assert "patients" in done.stderr
