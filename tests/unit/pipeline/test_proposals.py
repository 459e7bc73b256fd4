"""`extract` with a segmenter in place of regions, and the masks of crops."""

import csv
from pathlib import Path

import numpy as np
import pytest

from glomerulab.errors import CheckpointError, ConfigError, OutputError
from glomerulab.geometry import Region
from glomerulab.images import read_image
from glomerulab.pipeline.crop_plan import CropSettings
from glomerulab.pipeline.extract import extract_crops
from glomerulab.runtime.cluster import open_workers
from glomerulab.slides.regions.features import RegionOptions
from glomerulab.slides.regions.files import read_regions, write_regions
from tests.support.segmenters import GLOMERULUS, disc_slide, write_segmenter

SETTINGS = CropSettings(mpp=1.0, margin=0.1, has_masks=True, may_be_empty=True)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Two glomeruli, one, none, and a file that is no slide."""
    slides = tmp_path / "slides"
    disc_slide(slides / "a.tif", [(300, 200, 90), (620, 260, 70)], size=(900, 500))
    disc_slide(slides / "b.tif", [(300, 200, 80)], size=(900, 500))
    disc_slide(slides / "c.tif", [], size=(900, 500))
    (slides / "d.tif").write_bytes(b"broken")
    lines = ["slide_path,patient_id,stain", *(f"slides/{name}.tif,p{name},PAS" for name in "abcd")]
    (tmp_path / "slides.csv").write_text("\n".join(lines) + "\n")
    write_segmenter(tmp_path / "segmenter")
    return tmp_path


def extract(cohort: Path, out: Path, **how):
    how = {"settings": SETTINGS} | how
    return extract_crops(cohort / "slides.csv", detector=cohort / "segmenter", out=out, **how)


def test_crops_are_cut_at_what_the_segmenter_outlines(cohort, tmp_path) -> None:
    done = extract(cohort, tmp_path / "out")
    table = done.manifest.table
    assert table["slide_id"].tolist() == ["a", "a", "b"]
    for path, image_id in zip(done.manifest.image_paths(), table["image_id"], strict=True):
        is_glomerulus = (read_image(path) == GLOMERULUS).all(axis=2)
        mask = read_image(tmp_path / "out" / "masks" / f"{image_id}.png")
        assert np.mean((mask[..., 0] == 255) == is_glomerulus) > 0.99
        assert set(np.unique(mask)) == {0, 255}


def test_a_slide_without_glomeruli_is_told_and_a_broken_one_a_failure(cohort, tmp_path) -> None:
    done = extract(cohort, tmp_path / "out")
    assert [one.slide for one in done.failures] == ["d"]
    assert [name for name, note in done.notes if "proposed nothing" in note.en] == ["c"]
    with (tmp_path / "out" / "failures.csv").open() as stream:
        assert [row["slide"] for row in csv.DictReader(stream)] == ["d"]


SLOW = pytest.mark.slow  # processes that load torch or ONNX Runtime


@pytest.mark.parametrize(
    "kind", ["parts", pytest.param("processes", marks=SLOW), pytest.param("cluster", marks=SLOW)]
)
def test_any_division_gives_what_one_process_gives(cohort, tmp_path, kind) -> None:
    extract(cohort, tmp_path / "one")
    if kind == "parts":
        for part in (2, 1):
            extract(cohort, tmp_path / "two", part=(part, 2))
        extract(cohort, tmp_path / "two")
    elif kind == "processes":
        extract(cohort, tmp_path / "two", n_workers=2)
    else:
        file = tmp_path / "cluster.toml"
        file.write_text('kind = "local"\njobs = 2\n')
        with open_workers(None, file) as workers:
            extract(cohort, tmp_path / "two", workers=workers)
    names = [Path(name) for name in ("manifest.csv", "failures.csv")]
    names += [one.relative_to(tmp_path / "one") for one in (tmp_path / "one").rglob("*.png")]
    names += [one.relative_to(tmp_path / "one") for one in (tmp_path / "one").rglob("*.geojson")]
    assert len(names) == 2 + 2 * 3 + 3
    for name in names:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_crops_stay_while_glomeruli_are_proposed_and_a_foreign_folder_as_it_is(
    cohort, tmp_path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    extract(cohort, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(KeyboardInterrupt):
        extract(cohort, out, overwrite=True, track=interrupt)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "manifest.csv").write_text("mine")
    with pytest.raises(OutputError):
        extract(cohort, tmp_path / "foreign")
    assert not (tmp_path / "foreign" / "proposals").exists()


def test_where_no_slide_can_be_read_each_is_a_failure(cohort, tmp_path) -> None:
    (cohort / "slides.csv").write_text("slide_path\nslides/d.tif\n")
    done = extract(cohort, tmp_path / "out")
    assert [one.slide for one in done.failures] == ["d"]
    assert "region" not in done.failures[0].reason


def test_slides_of_one_file_name_have_their_own_proposals(cohort, tmp_path) -> None:
    discs = [[(300, 200, 90)], [(250, 240, 60), (620, 260, 70)]]
    for number, some in enumerate(discs, start=1):
        disc_slide(cohort / str(number) / "slide.tif", some, size=(900, 500))
    rows = ["slide_path,slide_id", "1/slide.tif,patient 1", "2/slide.tif,patient 2"]
    (cohort / "slides.csv").write_text("\n".join(rows))
    done = extract(cohort, tmp_path / "out")
    table = done.manifest.table
    assert table["slide_id"].tolist() == ["patient 1", "patient 2", "patient 2"]
    assert done.failures == ()
    for path in done.manifest.image_paths():
        assert (read_image(path) == GLOMERULUS).all(axis=2).mean() > 0.4


def test_corrected_proposals_are_refused_and_taken_as_regions(cohort, tmp_path) -> None:
    extract(cohort, tmp_path / "out")
    path = tmp_path / "out" / "proposals" / "a.geojson"
    write_regions(read_regions(path)[:1], path)
    again = extract(cohort, tmp_path / "out")
    assert {one.slide: "--regions" in one.reason for one in again.failures} == {
        "a": True,
        "d": False,
    }
    taken = extract_crops(
        cohort / "slides" / "a.tif", regions=path, out=tmp_path / "new", settings=SETTINGS
    )
    assert taken.n_cut == 1


def test_options_of_regions_and_both_or_no_sources_are_refused(cohort, tmp_path) -> None:
    options = CropSettings(region_options=RegionOptions(classes=("gs",)))
    with pytest.raises(ConfigError, match="--regions"):
        extract(cohort, tmp_path / "out", settings=options)
    with pytest.raises(ConfigError, match="--detect"):
        extract(cohort, tmp_path / "out", regions=cohort)
    with pytest.raises(ConfigError, match="--detect"):
        extract_crops(cohort / "slides.csv", out=tmp_path / "out")
    with pytest.raises(CheckpointError, match="nowhere"):
        extract_crops(cohort / "slides.csv", detector=tmp_path / "nowhere", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_mask_of_a_drawn_region_has_its_holes(cohort, tmp_path) -> None:
    hole = ((280, 180), (320, 180), (320, 220), (280, 220))
    region = Region("g1", ((200, 100), (400, 100), (400, 300), (200, 300)), holes=(hole,))
    write_regions([region], tmp_path / "a.geojson")
    slide = cohort / "slides" / "a.tif"
    settings = CropSettings(mpp=2.0, margin=0.0, has_masks=True)
    extract_crops(slide, regions=tmp_path / "a.geojson", out=tmp_path / "out", settings=settings)
    mask = read_image(tmp_path / "out" / "masks" / "a__g1.png")[..., 0]
    assert mask.shape == (100, 100)
    expected = np.full((100, 100), 255, np.uint8)
    expected[40:60, 40:60] = 0
    np.testing.assert_array_equal(mask, expected)


def test_crops_of_an_earlier_version_get_their_masks(cohort, tmp_path) -> None:
    extract(cohort, tmp_path / "out", settings=CropSettings(mpp=1.0, may_be_empty=True))
    assert not (tmp_path / "out" / "masks").exists()
    extract(cohort, tmp_path / "out")
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 3
