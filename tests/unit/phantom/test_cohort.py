import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import ConfigError
from glomerulab.images import read_image
from glomerulab.phantom.cohort import NOTICE, parse_stains, section_of, write_phantom_cohort


def _bytes(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cohort")
    write_phantom_cohort(out, n_patients=4, n_per_patient=5, seed=3, size=64, mpp=4.0)
    return out


def test_the_manifest_is_valid_and_says_that_it_is_synthetic(cohort):
    manifest = read_manifest(cohort / "manifest.csv")
    table = manifest.table
    assert len(table) == 20
    assert table["image_id"].str.startswith("phantom-").all()
    assert (table["synthetic"].astype(int) == 1).all()
    assert set(table["stain"]) == {"HE", "PAS"}
    assert table["patient_id"].nunique() == 4
    assert all(path.is_file() for path in manifest.image_paths())
    assert np.nansum(manifest.labels(), axis=0).tolist() == [6, 4, 6, 6]


def test_every_lesion_has_its_mask_and_every_image_its_truth(cohort):
    table = read_manifest(cohort / "manifest.csv").table
    for row in table.itertuples():
        truth = json.loads((cohort / "truth" / f"{row.image_id}.json").read_text())
        assert truth["synthetic"] is True
        assert truth["notice"] == NOTICE
        assert np.shape(truth["stain_matrix"]) == (3, 2)
        for label in ("mspgn", "fsg", "cgn"):
            mask = cohort / "masks" / f"{row.image_id}.{label}.png"
            assert mask.is_file() == (getattr(row, label) == 1)
            if mask.is_file():
                assert set(np.unique(read_image(mask))) == {0, 255}


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    settings = {"n_patients": 2, "n_per_patient": 2, "seed": 5, "size": 48, "mpp": 4.0}
    for n_workers in (1, 2):
        write_phantom_cohort(tmp_path / str(n_workers), n_workers=n_workers, **settings)
    assert _bytes(tmp_path / "1") == _bytes(tmp_path / "2")


def test_another_seed_is_another_cohort(tmp_path):
    for seed in (0, 1):
        write_phantom_cohort(
            tmp_path / str(seed), n_patients=1, n_per_patient=1, seed=seed, size=48, stains=["HE"]
        )
    first, second = (next((tmp_path / seed / "images").iterdir()).read_bytes() for seed in "01")
    assert first != second


def test_a_folder_rendered_again_with_another_seed_keeps_nothing_of_the_first(tmp_path):
    settings = {"n_patients": 2, "n_per_patient": 4, "size": 48, "mpp": 4.0}
    write_phantom_cohort(tmp_path / "again", seed=0, concentrations=True, **settings)
    for folder in ("again", "fresh"):
        write_phantom_cohort(tmp_path / folder, seed=3, **settings)
    assert _bytes(tmp_path / "again") == _bytes(tmp_path / "fresh")


def test_true_concentrations_are_written_when_asked_for(tmp_path):
    write_phantom_cohort(tmp_path, n_patients=1, n_per_patient=1, size=48, concentrations=True)
    with np.load(next((tmp_path / "truth").glob("*.npz"))) as truth:
        assert truth["concentrations"].shape == (2, 48, 48)


def test_patients_differ_and_both_stains_of_one_share_scanner_and_size():
    sections = [section_of(patient, "HE", 0) for patient in range(6)]
    assert len({section.thickness for section in sections}) == 6
    assert len({section.scanner.name for section in sections}) > 1
    assert section_of(2, "PAS", 0).scanner == sections[2].scanner
    assert section_of(2, "PAS", 0).radius_um == sections[2].radius_um


@pytest.mark.slow
def test_colour_statistics_hardly_tell_the_class(tmp_path):
    write_phantom_cohort(tmp_path, n_patients=20, n_per_patient=10, seed=1, size=128, mpp=2.0)
    manifest = read_manifest(tmp_path / "manifest.csv")
    pixels = [read_image(path).reshape(-1, 3) for path in manifest.image_paths()]
    statistics = np.array([[*p.mean(axis=0), *p.std(axis=0)] for p in pixels])
    kinds = manifest.labels() @ [1, 2, 4, 8]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    accuracy = cross_val_score(model, statistics, kinds, cv=5).mean()
    assert accuracy < 0.30 + 0.15  # always saying "normal" scores 0.30


@pytest.mark.parametrize("text", ["", "HE,PASM", ","])
def test_unknown_stains_are_refused(text):
    with pytest.raises(ConfigError, match="HE, PAS or both"):
        parse_stains(text)


def test_stains_are_read_in_any_case():
    assert parse_stains("pas, HE") == ("PAS", "HE")


@pytest.mark.parametrize("setting", ["n_patients", "n_per_patient"])
def test_an_empty_cohort_is_refused(setting, tmp_path):
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        write_phantom_cohort(tmp_path, **{setting: 0})
