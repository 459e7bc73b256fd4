import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.manifest import manifest_from_rows, read_manifest, write_manifest
from glomerulab.images import read_image, write_image
from glomerulab.taxonomy import load_taxonomy
from tests.support.command_line import Run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Twelve pictures of six patients, in a folder with spaces and Chinese in its name."""
    folder = tmp_path / "肾 活检"
    folder.mkdir()
    rows = []
    for n in range(12):
        blobs = np.random.default_rng(n).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        write_image(np.kron(blobs, np.ones((12, 12, 1), dtype=np.uint8)), folder / f"图 {n}.png")
        rows.append(
            {
                "image_id": f"图 {n}",
                "image_path": f"图 {n}.png",
                "patient_id": f"p{n % 6}",
                "stain": "HE" if n < 6 else "PAS",
                "normal": n % 2,
                "cgn": 1 - n % 2,
            }
        )
    manifest = manifest_from_rows(
        pd.DataFrame(rows), folder=folder, taxonomy=load_taxonomy("paper")
    )
    write_manifest(manifest, folder / "manifest.csv")
    return folder / "manifest.csv"


def test_split_writes_the_parts_and_prints_a_table(run: Run, cohort: Path) -> None:
    out = cohort.parent / "split.csv"
    done = run("split", cohort, "--out", out, "--ratios", "4:1:1", "--seed", 3, "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "patients  images  normal" in done.stdout
    assert "Research use only" in done.stdout
    table = read_manifest(out).table
    assert table.groupby("patient_id")["split"].nunique().max() == 1
    folds = run("split", out, "--out", out.with_name("folds.csv"), "--folds", 2)
    assert folds.returncode == 0, folds.stderr
    assert set(read_manifest(out.with_name("folds.csv")).table["fold"].dropna()) == {0, 1}


def test_a_split_by_image_prints_its_risk(run: Run, cohort: Path) -> None:
    done = run("split", cohort, "--out", cohort.with_name("s.csv"), "--by", "image")
    assert done.returncode == 0, done.stderr
    assert "patients have images in several parts" in done.stdout


def test_near_duplicates_stop_a_split_until_they_are_allowed_by_name(
    run: Run, cohort: Path
) -> None:
    for patient in range(1, 6):  # one picture for everyone: some pair must fall apart
        shutil.copy(cohort.with_name("图 0.png"), cohort.with_name(f"图 {patient}.png"))
    out = cohort.with_name("split.csv")
    refused = run("split", cohort, "--out", out)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("glomerulab: ")
    assert "nearly identical images in two parts" in refused.stderr
    assert not out.exists()
    pairs = [(f"图 {a}", f"图 {b}") for a in range(6) for b in range(a)]
    allowed = cohort.with_name("allowed.csv")
    pd.DataFrame(pairs, columns=["image_id", "other_image_id"]).to_csv(allowed, index=False)
    assert run("split", cohort, "--out", out, "--allow-near-duplicates", allowed).returncode == 0
    assert run("split", cohort, "--out", out, "--no-near-duplicates").returncode == 0


@pytest.mark.parametrize("ratios", ["6:2", "a:b:c", "0:1:1", "6:-1:2"])
def test_impossible_ratios_are_reported_in_one_line(run: Run, cohort: Path, ratios: str) -> None:
    done = run("split", cohort, "--out", cohort.with_name("s.csv"), f"--ratios={ratios}")
    assert done.returncode == 2
    assert "--ratios must be" in done.stderr


def test_check_lists_every_problem_and_ends_with_one(run: Run, cohort: Path) -> None:
    good = run("manifest", "check", cohort)
    assert good.returncode == 0, good.stderr
    assert "12 images, no problem found. Research use only." in good.stdout
    shutil.copy(cohort.with_name("图 0.png"), cohort.with_name("图 1.png"))
    cohort.with_name("图 2.png").write_bytes(b"")
    bad = run("manifest", "check", cohort, "--workers", 2)
    assert bad.returncode == 1
    assert "line 3, image '图 1': same pixels as image '图 0' in line 2" in bad.stdout
    assert "line 4, image '图 2': " in bad.stdout
    assert "2 problems, listed above" in bad.stderr


def test_labels_go_to_the_papers_json_and_come_back(run: Run, cohort: Path) -> None:
    labels = cohort.with_name("labels.json")
    assert run("manifest", "export", cohort, "--out", labels).returncode == 0
    assert '"正常肾小球": 0' in labels.read_text(encoding="utf-8")
    again = cohort.with_name("again.parquet")
    done = run("manifest", "import", labels, "--out", again, "--set", "stain=HE")
    assert done.returncode == 0, done.stderr
    before, after = read_manifest(cohort).table, read_manifest(again).table
    assert after["normal"].equals(before["normal"])
    assert set(after["stain"]) == {"HE"}


def test_a_folder_per_class_is_imported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c" / "cgn").mkdir(parents=True)
    write_image(np.zeros((4, 4, 3), np.uint8), tmp_path / "c" / "cgn" / "a.png")
    done = run("manifest", "import", tmp_path / "c", "--out", tmp_path / "m.csv")
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "m.csv").table["image_path"].tolist() == ["c/cgn/a.png"]
    wrong = run(
        "manifest", "import", tmp_path / "c", "--out", tmp_path / "m.csv", "--column", "a=b"
    )
    assert wrong.returncode == 1


def test_an_import_makes_the_folder_and_reports_missing_images(
    run: Run, cohort: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "m.csv"
    done = run("manifest", "import", cohort, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_manifest(out).table["patient_id"].tolist() == [f"p{n % 6}" for n in range(12)]
    cohort.with_name("图 3.png").unlink()
    done = run("manifest", "import", cohort, "--out", out)
    assert done.returncode == 0
    assert "1 of 12 images do not exist" in done.stderr
    assert str(cohort.with_name("图 3.png")) in done.stderr
    assert "--image-root" in done.stderr


def test_an_import_names_patients_that_mislead(run: Run, tmp_path: Path) -> None:
    rows = "".join(f"{n}.png,{name},normal\n" for n, name in enumerate(("NA", "NA", "7", "007")))
    (tmp_path / "in.csv").write_text(f"image_path,patient_id,label\n{rows}")
    done = run("manifest", "import", tmp_path / "in.csv", "--out", tmp_path / "m.csv")
    assert done.returncode == 0
    assert "2 of 4 images are of one patient called 'NA'" in done.stderr
    assert "'007' and '7' look alike" in done.stderr


@pytest.mark.real
def test_glas_is_imported_checked_and_split_by_patient(
    run: Run, real_data: Path, tmp_path: Path
) -> None:
    folder, manifest, split = real_data / "glas_colon_he", tmp_path / "m.csv", tmp_path / "s.csv"
    done = run(
        "manifest",
        "import",
        folder / "labels.csv",
        "--out",
        manifest,
        "--image-root",
        folder / "images",
        "--taxonomy",
        ROOT / "configs/taxonomies/glas.toml",
        "--column",
        "image_path=image",
        "--column",
        "patient_id=patient_id",
        "--label-column",
        "label",
        "--class",
        "benign=benign",
        "--set",
        "stain=HE",
    )
    assert done.returncode == 0, done.stderr
    assert run("manifest", "check", manifest).returncode == 0
    done = run("split", manifest, "--out", split)
    assert done.returncode == 0, done.stderr
    parts = read_manifest(split)
    assert parts.taxonomy.label_ids == ("benign", "malignant")
    assert parts.table.groupby("patient_id")["split"].nunique().max() == 1
    shares = parts.table["split"].value_counts(normalize=True)
    assert abs(shares["train"] - 0.6) < 0.03
    malignant = parts.table.groupby("split")["malignant"].mean()
    assert malignant.max() - malignant.min() < 0.15


@pytest.mark.real
def test_kidney_compartments_are_imported_with_their_stains_and_shown(
    run: Run, real_data: Path, tmp_path: Path
) -> None:
    manifest, sheet = tmp_path / "m.csv", tmp_path / "sheet.png"
    done = run(
        "manifest",
        "import",
        real_data / "kidney_compartments" / "labels.csv",
        "--out",
        manifest,
        "--taxonomy",
        ROOT / "configs/taxonomies/kidney_compartments.toml",
        "--column",
        "image_path=image",
        "--column",
        "stain=stain",
        "--value",
        "stain:SIL=PASM",
        "--label-column",
        "class",
    )
    assert done.returncode == 0, done.stderr
    stains = read_manifest(manifest).table["stain"].value_counts().to_dict()
    assert stains == {"HE": 25, "PAS": 40, "PASM": 25 - 5, "TRI": 25}
    done = run(
        "manifest",
        "contact-sheet",
        manifest,
        "--out",
        sheet,
        "--per-group",
        5,
        "--cell",
        64,
        "--workers",
        1,
    )
    assert done.returncode == 0, done.stderr
    assert read_image(sheet).shape[1] == 6 + 5 * 70
