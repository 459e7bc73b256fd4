import json
import subprocess
import sys
from pathlib import Path

import pytest

from glomerulab.cohort.manifest import read_manifest
from glomerulab.phantom.slides import write_phantom_slides

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.xdist_group("quickstart"),  # one process: the run they look at is made once
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quick start 快速") / "out"


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    return _quickstart(folder)


def test_its_last_line_is_the_path_of_the_report(
    done: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last == f"Report: {folder / 'run' / 'report.html'}"
    assert (folder / "run" / "report.html").is_file()


def test_output_and_report_state_that_all_is_synthetic(
    done: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert "synthetic" in done.stdout
    page = (folder / "run" / "report.html").read_text(encoding="utf-8")
    assert "synthetic" in page.lower()
    assert "research use only" in page.lower()


def test_every_step_shows_its_progress(done: subprocess.CompletedProcess[str]) -> None:
    lines = done.stderr.splitlines()
    assert sum(" done in " in line for line in lines) >= 7


def test_the_accuracy_on_the_test_patients_is_well_above_chance(
    done: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert done.returncode == 0
    scores = json.loads((folder / "run" / "scores.json").read_text(encoding="utf-8"))
    accuracy = next(row for row in scores["scores"] if row["score"] == "accuracy")
    assert accuracy["low"] > 0.4, accuracy  # four classes


def test_no_patient_is_in_two_parts_and_no_test_image_was_augmented(
    done: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert done.returncode == 0
    table = read_manifest(folder / "run" / "manifest.csv").table
    assert table.groupby("patient_id")["split"].nunique().max() == 1
    copies = table[table["parent_id"].notna()]
    assert len(copies) > 0
    assert set(copies["split"]) == {"train"}


def test_a_second_run_does_not_train_again(
    done: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert done.returncode == 0
    weights = folder / "run" / "history.csv"
    before = weights.stat().st_mtime_ns
    again = _quickstart(folder)
    assert again.returncode == 0
    assert weights.stat().st_mtime_ns == before


def test_a_folder_of_another_seed_is_refused(
    done: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert done.returncode == 0
    other = _quickstart(folder, "--seed", "5")
    assert other.returncode == 1
    assert "seed" in other.stderr
    assert "--out" in other.stderr


def test_its_slides_are_those_of_the_phantom_command(
    done: subprocess.CompletedProcess[str], folder: Path, tmp_path: Path
) -> None:
    assert done.returncode == 0
    write_phantom_slides(tmp_path, n_patients=24, n_glomeruli=8, seed=0, mpp=1.0, n_workers=2)
    ours = sorted((folder / "phantom" / "slides").iterdir())
    theirs = sorted((tmp_path / "slides").iterdir())
    assert [path.name for path in ours] == [path.name for path in theirs]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(ours, theirs, strict=True))


def _quickstart(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "glomerulab", "quickstart", "--out", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)
