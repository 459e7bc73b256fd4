import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import ConfigError
from glomerulab.images import read_image
from glomerulab.phantom.cohort import NOTICE, parse_stains
from glomerulab.phantom.crops import LESION_BITS, render_crop, write_phantom_crops
from glomerulab.phantom.glomerulus import KINDS, Lesions
from glomerulab.phantom.section import Scanner, Section, cohort_section, draw_section
from glomerulab.phantom.stains import Material, recompose


def _section(stain: str = "PAS", **settings) -> Section:
    drawn = draw_section(stain, np.random.default_rng(8), scanner=Scanner())
    return replace(drawn, **settings)


def _inside(crop) -> np.ndarray:
    size = crop.pixels.shape[1], crop.pixels.shape[0]
    mask = Image.new("1", size)
    ImageDraw.Draw(mask).polygon(list(crop.outline), fill=1)
    return np.asarray(mask)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_those_of_the_labels_and_lie_in_the_glomerulus(kind):
    crop = render_crop(kind, _section(), 5, size=256, mpp=1.0)
    assert crop.labels == KINDS[kind]
    assert set(crop.masks) == set(KINDS[kind]) & set(LESION_BITS)
    inside = _inside(crop)
    for label, mask in crop.masks.items():
        assert mask.sum() > 50, label
        assert mask[~inside].sum() <= 0.02 * mask.sum(), label


def test_the_same_seed_gives_the_same_bytes_and_another_does_not():
    first, again, other = (render_crop("cgn", _section(), seed, size=96) for seed in (1, 1, 2))
    assert np.array_equal(first.pixels, again.pixels)
    assert np.array_equal(first.concentrations, again.concentrations)
    assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("stain", ["HE", "PAS"])
def test_pixels_of_a_perfect_scanner_are_beer_lambert(stain):
    scanner = Scanner(white=(240.0, 235.0, 238.0))
    crop = render_crop("fsg", _section(stain, scanner=scanner), 4, size=160)
    light = recompose(crop.concentrations, crop.stain_matrix, white=crop.white)
    assert np.abs(crop.pixels - light).max() <= 0.51
    assert np.array_equal(crop.ideal(), crop.pixels)


def test_the_noise_of_a_scanner_is_unbiased():
    crop = render_crop("fsg", _section(scanner=Scanner(noise=3.0)), 4, size=160)
    difference = crop.pixels.astype(float) - crop.ideal()
    assert abs(difference.mean()) < 0.1
    assert 1.0 < difference.std() < 3.1


def test_the_same_tissue_can_be_restained():
    crop = render_crop("normal", _section("HE"), 4, size=64)
    other = crop.ideal(_section("PAS").stain_matrix, white=255.0)
    assert other.shape == crop.pixels.shape
    assert not np.array_equal(other, crop.ideal())


def test_concentrations_and_matrix_have_their_stated_form():
    crop = render_crop("normal", _section(), 0, size=64)
    assert crop.concentrations.shape == (2, 64, 64)
    assert crop.concentrations.dtype == np.float32
    assert (crop.concentrations >= 0).all()
    assert np.linalg.norm(crop.stain_matrix, axis=0) == pytest.approx([1.0, 1.0])


def test_a_diseased_mesangium_shows_more_nuclei():
    healthy = [render_crop(Lesions(), _section(), seed).mesangial_cells for seed in range(3)]
    ill = [render_crop(Lesions(mspgn=0.3), _section(), seed).mesangial_cells for seed in range(3)]
    assert min(np.mean(counts) for counts in ill) > max(np.mean(counts) for counts in healthy)


def test_hard_cases_are_settings():
    blank = render_crop("normal", _section(thickness=0.0), 0, size=64)
    assert (blank.pixels == 255).all()
    grey = render_crop("normal", _section().with_white((130.0, 130.0, 130.0)), 0, size=64)
    assert grey.pixels.max() <= 130
    frame = render_crop("normal", _section(scanner=Scanner(black_border=0.27)), 0, size=256)
    assert (frame.pixels == 0).all(axis=2).mean() == pytest.approx(0.27, abs=0.02)


def test_a_smaller_mpp_shows_the_same_glomerulus_larger():
    fine, coarse = (render_crop("normal", _section(), 3, size=n, mpp=256 / n) for n in (256, 128))
    assert np.array(fine.outline).std() == pytest.approx(
        2 * np.array(coarse.outline).std(), rel=0.02
    )
    assert (fine.structure == Material.SPACE).mean() == pytest.approx(
        (coarse.structure == Material.SPACE).mean(), abs=0.02
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"size": 16}, "size"), ({"mpp": 0.0}, "mpp"), ({"mpp": float("nan")}, "mpp")],
)
def test_an_impossible_view_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        render_crop("normal", _section(), 0, **settings)


def _bytes(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cohort")
    write_phantom_crops(out, n_patients=4, n_per_patient=5, seed=3, size=64, mpp=4.0)
    return out


def test_the_manifest_is_valid_and_marked_synthetic(cohort):
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
        write_phantom_crops(tmp_path / str(n_workers), n_workers=n_workers, **settings)
    assert _bytes(tmp_path / "1") == _bytes(tmp_path / "2")


def test_another_seed_is_another_cohort(tmp_path):
    for seed in (0, 1):
        write_phantom_crops(
            tmp_path / str(seed), n_patients=1, n_per_patient=1, seed=seed, size=48, stains=["HE"]
        )
    first, second = (next((tmp_path / seed / "images").iterdir()).read_bytes() for seed in "01")
    assert first != second


def test_a_folder_rendered_with_another_seed_keeps_no_file_of_the_first(tmp_path):
    settings = {"n_patients": 2, "n_per_patient": 4, "size": 48, "mpp": 4.0}
    write_phantom_crops(tmp_path / "again", seed=0, concentrations=True, **settings)
    for folder in ("again", "fresh"):
        write_phantom_crops(tmp_path / folder, seed=3, **settings)
    assert _bytes(tmp_path / "again") == _bytes(tmp_path / "fresh")


def test_true_concentrations_are_written_on_request(tmp_path):
    write_phantom_crops(tmp_path, n_patients=1, n_per_patient=1, size=48, concentrations=True)
    with np.load(next((tmp_path / "truth").glob("*.npz"))) as truth:
        assert truth["concentrations"].shape == (2, 48, 48)


def test_patients_differ_and_both_stains_of_one_share_scanner_and_size():
    sections = [cohort_section(patient, "HE", 0) for patient in range(6)]
    assert len({section.thickness for section in sections}) == 6
    assert len({section.scanner.name for section in sections}) > 1
    assert cohort_section(2, "PAS", 0).scanner == sections[2].scanner
    assert cohort_section(2, "PAS", 0).radius_um == sections[2].radius_um


@pytest.mark.slow
def test_colour_statistics_hardly_predict_the_class(tmp_path):
    write_phantom_crops(tmp_path, n_patients=20, n_per_patient=10, seed=1, size=128, mpp=2.0)
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
        write_phantom_crops(tmp_path, **{setting: 0})
