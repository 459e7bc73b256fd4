from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.errors import ManifestError
from glomerulab.evaluation.stain_check import StainCheck
from glomerulab.images import write_image
from glomerulab.pipeline.normalize import normalize_manifest
from glomerulab.pipeline.stain_check import check_stains
from glomerulab.stain.fitting import fit
from glomerulab.taxonomy import load_taxonomy
from tests.support.beer_lambert import section

SCANNERS = {
    "a": {"dyes": ((0.68, 0.66, 0.31), (0.12, 0.95, 0.28)), "white": (245.0, 243.0, 244.0)},
    "b": {"dyes": ((0.54, 0.75, 0.38), (0.22, 0.86, 0.46)), "white": (225.0, 228.0, 236.0)},
}


def write_cohort(folder: Path, *, n_per_scanner: int = 8) -> Manifest:
    """Crops from two scanners that differ in colour only; two patients per scanner pair."""
    folder.mkdir(parents=True)
    rows = []
    for number, (scanner, settings) in enumerate(SCANNERS.items()):
        for k in range(n_per_scanner):
            image_id = f"{scanner}{k}"
            write_image(
                section(50 * number + k, size=96, **settings).image, folder / f"{image_id}.png"
            )
            slide = f"slide-{scanner}{k // 4}"
            rows.append((image_id, f"{image_id}.png", f"p{scanner}{k // 2}", slide, "HE", scanner))
    columns = ["image_id", "image_path", "patient_id", "slide_id", "stain", "scanner"]
    return manifest_from_rows(
        pd.DataFrame(rows, columns=columns), folder=folder, taxonomy=load_taxonomy("paper")
    )


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    root = tmp_path_factory.mktemp("check")
    before = write_cohort(root / "before")
    target = fit(section(200, size=128).image, "HE")
    return before, normalize_manifest(before, {"HE": target}, root / "after").manifest


@pytest.fixture(scope="module")
def check(cohorts) -> StainCheck:
    return check_stains(*cohorts)


def test_the_scanner_is_harder_to_predict_after_normalisation(cohorts) -> None:
    found = check_stains(*cohorts, predict="scanner").parts[0].prediction
    assert found is not None
    assert found.grouped_by == "patient_id"
    assert (found.n_classes, found.n_images) == (2, 16)
    assert found.before > 0.95
    assert found.after < found.before
    assert 0.5 <= found.chance <= 1.0


def test_the_table_has_a_row_per_image_with_its_measures(cohorts, check: StainCheck) -> None:
    assert sorted(check.table["image_id"]) == sorted(cohorts[0].table["image_id"])
    measures = ["nmi_before", "nmi_after", "ssim", "pcc", "saturated_after", "background_delta_e"]
    assert np.isfinite(check.table[measures].to_numpy(dtype=float)).all()
    assert check.table["ssim"].min() > 0.5
    assert (check.table["stain_status"] == "normalized").all()
    assert len(check.paths) == len(check.table)


def test_maps_come_with_their_trustworthiness(check: StainCheck) -> None:
    (part,) = check.parts
    assert part.before is not None
    assert part.before.points.shape == (16, 2)
    assert 0.5 < part.before.trustworthiness <= 1.0
    assert np.array_equal(check.table[["tsne_x_before", "tsne_y_before"]], part.before.points)


def test_stains_are_compared_separately(cohorts) -> None:
    before, after = (
        cohort.with_table(cohort.table.assign(stain=["HE", "PAS"] * 8)) for cohort in cohorts
    )
    check = check_stains(before, after, predict="scanner")
    assert [part.stain for part in check.parts] == ["HE", "PAS"]
    for part in check.parts:
        assert part.before is not None
        assert part.before.points.shape == (8, 2)
        assert part.prediction is not None
        assert part.prediction.n_images == 8
        assert set(check.table["stain"].iloc[part.rows]) == {part.stain}


def test_the_same_seed_gives_the_same_check_with_any_number_of_workers(
    cohorts, check: StainCheck
) -> None:
    one, two = check, check_stains(*cohorts, n_workers=2)
    assert one.table.equals(two.table)
    assert np.array_equal(one.parts[0].after.points, two.parts[0].after.points)
    assert one.parts[0].prediction == two.parts[0].prediction


def test_an_image_that_cannot_be_read_is_left_out_and_named(cohorts, tmp_path: Path) -> None:
    before = write_cohort(tmp_path / "cohort", n_per_scanner=2)
    before.image_paths()[1].write_bytes(b"no image")
    check = check_stains(before, before)
    assert len(check.table) == 3
    assert check.unreadable[0].startswith("a1: ")
    (part,) = check.parts
    assert part.before is None  # too few for a map
    assert "slide_id" in part.why_no_prediction or part.prediction is not None


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    before = write_cohort(tmp_path / "one", n_per_scanner=2)
    after = write_cohort(tmp_path / "two", n_per_scanner=2)
    write_image(np.zeros((20, 20, 3), np.uint8), after.image_paths()[0])
    check = check_stains(before, after)
    assert "20 x 20 px after and 96 x 96 px before" in check.unreadable[0]


def test_a_source_with_one_value_cannot_be_predicted(tmp_path: Path) -> None:
    before = write_cohort(tmp_path / "cohort", n_per_scanner=4)
    before = before.with_table(before.table.assign(scanner="one"))
    check = check_stains(before, before, predict="scanner")
    assert check.parts[0].prediction is None
    assert "fewer than two values of scanner" in check.parts[0].why_no_prediction


def test_an_unknown_column_names_those_there_are(cohorts) -> None:
    with pytest.raises(ManifestError, match=r"no column 'hospital' .*image_id"):
        check_stains(*cohorts, predict="hospital")


def test_manifests_of_other_images_are_refused(cohorts) -> None:
    before, after = cohorts
    renamed = after.with_table(after.table.assign(image_id=after.table["image_id"] + "x"))
    with pytest.raises(ManifestError, match="shares no image_id"):
        check_stains(before, renamed)


def test_a_cohort_of_unreadable_images_is_an_error(tmp_path: Path) -> None:
    before = write_cohort(tmp_path / "cohort", n_per_scanner=1)
    for path in before.image_paths():
        path.unlink()
    with pytest.raises(ManifestError, match="no image of the manifest"):
        check_stains(before, before)


def test_the_target_image_is_shown_while_it_exists(cohorts, tmp_path: Path) -> None:
    before, _ = cohorts
    image, seen = section(200, size=128).image, tmp_path / "target.png"
    write_image(image, seen)
    target = fit(image, "HE", source=str(seen))
    after = normalize_manifest(before, {"HE": target}, tmp_path / "after").manifest
    assert check_stains(before, after).targets == {"HE": seen}
    seen.unlink()
    assert check_stains(before, after).targets == {}
