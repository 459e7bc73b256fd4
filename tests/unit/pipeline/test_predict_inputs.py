from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glomerulab.errors import ConfigError, TaxonomyError
from glomerulab.geometry import Box, Region
from glomerulab.images import image_size, write_image
from glomerulab.inference.detector import Detector
from glomerulab.models.card import ModelCard
from glomerulab.pipeline.predict_inputs import (
    MIN_PARALLEL,
    PredictionInputs,
    PredictSettings,
    read_inputs,
    read_source,
)
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.regions.files import read_regions, write_regions
from glomerulab.taxonomy import load_taxonomy, write_taxonomy
from tests.support.cases import PAPER
from tests.support.segmenters import ByColour, disc_slide, write_segmenter


def card(mpp: float | None = 1.0) -> ModelCard:
    return ModelCard(
        model="resnet18",
        taxonomy_name=PAPER.name,
        labels=PAPER.labels,
        input_size=32,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        mpp=mpp,
    )


def crops(source: Path, out: Path, *, mpp: float | None = 1.0, **settings) -> PredictionInputs:
    settings = PredictSettings(**settings)
    return read_inputs(read_source(source, card(mpp), settings), card(mpp), out, settings=settings)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    write_pyramid(pixels, tmp_path / "s1.tif", mpp=0.5, compression="deflate")
    write_regions([Region.from_box("g1", Box(100, 150, 120, 120))], tmp_path / "s1.geojson")
    return tmp_path / "s1.tif"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    for name, level in (("a", 200), ("b", 201)):
        write_image(np.full((48, 48, 3), level, dtype=np.uint8), tmp_path / f"{name}.png")
    (tmp_path / "m.csv").write_text("image_id,image_path,stain,mpp\na,a.png,HE,1.0\nb,b.png,,0.5\n")
    return tmp_path / "m.csv"


def test_crops_have_the_mpp_of_the_model(slide: Path, tmp_path: Path) -> None:
    cut = crops(slide, tmp_path / "out", regions=slide.with_suffix(".geojson"), margin=0.0)
    assert cut.manifest.table["mpp"].tolist() == [1.0]
    assert cut.notes == ()


def test_a_slide_coarser_than_the_model_is_reported(slide: Path, tmp_path: Path) -> None:
    cut = crops(slide, tmp_path / "out", mpp=0.25, regions=slide.with_suffix(".geojson"))
    assert [note.en.split(":")[0] for note in cut.notes] == [
        "Slide s1 is coarser than the model's 0.25 µm per pixel"
    ]
    assert [note.case for note in cut.notes] == ["s1"]


def test_a_coarse_slide_is_noted_in_the_report_of_its_patient(slide: Path, tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    table.write_text("slide_path,slide_id,patient_id\ns1.tif,s1,p7\n")
    cut = crops(table, tmp_path / "out", mpp=0.25, regions=slide.with_suffix(".geojson"))
    assert [note.case for note in cut.notes] == ["p7"]


def test_doubts_about_the_scale_are_notes_of_the_patient(slide: Path, tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    table.write_text("slide_path,slide_id,patient_id,mpp\ns1.tif,s1,p7,0.05\n")
    cut = crops(table, tmp_path / "out", mpp=0.05, regions=slide.with_suffix(".geojson"))
    assert [note.case for note in cut.notes] == ["p7", "p7"]
    assert ["0.5" in note.en for note in cut.notes] == [True, False]
    assert "6 µm" in cut.notes[1].en
    assert "6 µm" in cut.notes[1].zh
    assert [note.en in line for note, line in zip(cut.notes, cut.region_lines, strict=True)] == [
        True,
        True,
    ]


def test_slides_without_regions_name_the_missing_options(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--regions"):
        crops(slide, tmp_path / "out")


def test_a_model_without_mpp_cannot_cut(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="extract --mpp"):
        crops(slide, tmp_path / "out", mpp=None, regions=slide.with_suffix(".geojson"))


def test_crops_of_another_scale_are_counted(manifest: Path, tmp_path: Path) -> None:
    (note,) = crops(manifest, tmp_path / "out").notes
    assert note.en == "1 of 1 crops are not at the model's 1 µm per pixel."
    assert note.case == "b"
    manifest.write_text("image_id,image_path,patient_id,mpp\na,a.png,p1,1.0\nb,b.png,p1,0.5\n")
    (note,) = crops(manifest, tmp_path / "out").notes
    assert note.en == "1 of 2 crops are not at the model's 1 µm per pixel."
    assert note.case == "p1"


def test_what_misleads_in_many_cases_is_counted_for_the_terminal(
    manifest: Path, tmp_path: Path
) -> None:
    rows = "".join(f"{n},a.png,p{n},0.5\n" for n in range(12)) + "x,a.png,P1,0.5\n"
    manifest.write_text(f"image_id,image_path,patient_id,mpp\n{rows}")
    *scales, more, alike = crops(manifest, tmp_path / "out").region_lines
    assert len(scales) == 10
    assert more.startswith("3 more")
    assert "'P1' and 'p1'" in alike


def test_crops_without_a_stain_get_the_given_one(manifest, tmp_path) -> None:
    table = crops(manifest, tmp_path / "out", stain="PAS").manifest.table
    assert table["stain"].tolist() == ["HE", "PAS"]


def test_crops_need_no_detector(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave out the detector"):
        crops(manifest, tmp_path / "out", detector=tmp_path / "dots")


def test_crops_labelled_for_another_task_are_refused(manifest: Path, tmp_path: Path) -> None:
    write_taxonomy(load_taxonomy(Path("configs/taxonomies/glas.toml")), tmp_path / "taxonomy.toml")
    manifest.write_text("image_id,image_path,benign,malignant\na,a.png,1,0\n")
    with pytest.raises(TaxonomyError, match="benign, malignant, but the model"):
        crops(manifest, tmp_path / "out")
    manifest.write_text("image_id,image_path\na,a.png\n")
    (tmp_path / "taxonomy.toml").unlink()
    assert len(crops(manifest, tmp_path / "out").manifest.table) == 1


def test_size_map_and_outlines_of_a_slide(make_slide, tmp_path: Path) -> None:
    make_slide("biopsy.tiff", size=(2400, 1200))
    region = Region.from_box("g1", Box(300, 200, 150, 140))
    write_regions([region], tmp_path / "r.geojson")
    table = tmp_path / "slides.csv"
    table.write_text("slide_path,patient_id,stain\nbiopsy.tiff,p1,PAS\n")
    out = tmp_path / "out"
    found = crops(table, out, regions=tmp_path / "r.geojson")
    (facts,) = found.slides
    assert (facts.width, facts.height, facts.mpp, facts.stain) == (2400, 1200, 0.5, "PAS")
    assert facts.file_name == "biopsy.tiff"
    assert image_size(out / facts.map_path) == (1600, 800)
    assert found.regions["biopsy", "g1"].polygon == region.polygon


def test_a_slide_that_cannot_be_opened_is_a_failure(make_slide, tmp_path: Path) -> None:
    make_slide("slides/good.tiff")
    (tmp_path / "slides" / "bad.tiff").write_bytes(b"nothing")
    for name in ("good", "bad"):
        write_regions([Region.from_box("g1", Box(9, 9, 9, 9))], tmp_path / f"{name}.geojson")
    found = crops(tmp_path / "slides", tmp_path / "out", regions=tmp_path, stain="HE")
    assert [one.slide_id for one in found.slides] == ["good"]
    assert found.slides[0].stain == "HE"
    assert [one.slide for one in found.failures] == ["bad"]


def test_few_images_need_one_process() -> None:
    settings = PredictSettings(n_workers=3)
    assert settings.processes(MIN_PARALLEL - 1) == 1
    assert settings.processes(MIN_PARALLEL) == 3


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """A slide with a glomerulus, one without, and a broken one."""
    disc_slide(tmp_path / "a.tif", [(400, 300, 90)])
    disc_slide(tmp_path / "b.tif", [])
    (tmp_path / "c.tif").write_bytes(b"broken")
    lines = [f"{name}.tif,slide {name},p,HE" for name in "abc"]
    table = tmp_path / "slides.csv"
    table.write_text("\n".join(["slide_path,slide_id,patient_id,stain", *lines]) + "\n")
    return table


@pytest.fixture
def segmenter(tmp_path: Path) -> Path:
    return write_segmenter(tmp_path / "segmenter")


def test_each_readable_slide_gets_proposals_and_empty_ones_a_note(
    discs, tmp_path, segmenter
) -> None:
    out = tmp_path / "out"
    found = crops(discs, out, mpp=4.0, detector=segmenter)
    assert list(found.scores) == [("slide a", "slide a proposal 1")]
    assert found.slides_without_regions == ("slide b",)
    assert [one.slide for one in found.failures] == ["slide c"]
    (nothing,) = [note for note in found.notes if "nothing on slide slide b" in note.en]
    assert nothing.case == "p"
    names = sorted(path.name for path in (out / "proposals").iterdir())
    assert names == ["a.tif.geojson", "b.tif.geojson"]
    assert len(read_regions(out / "proposals" / "a.tif.geojson")) == 1


def test_a_stain_that_the_segmenter_never_saw_is_noted(discs, tmp_path) -> None:
    detector = Detector(ByColour(stains_seen=("PAS",)), "d")
    found = crops(discs, tmp_path / "out", mpp=4.0, detector=detector)
    assert any("no slide stained HE" in note.en for note in found.notes)


def test_proposals_are_made_again_only_by_another_detector(discs, tmp_path) -> None:
    one, other = ByColour(), ByColour()
    first = crops(discs, tmp_path / "out", mpp=4.0, detector=Detector(one, "d"))
    n_tiles = len(one.shapes)
    again = crops(discs, tmp_path / "out", mpp=4.0, detector=Detector(one, "d"))
    assert len(one.shapes) == n_tiles
    assert (again.notes, again.scores) == (first.notes, first.scores)
    assert again.slides_without_regions == first.slides_without_regions
    crops(discs, tmp_path / "out", mpp=4.0, detector=Detector(other, "another"))
    assert len(other.shapes) == n_tiles


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("stain", "FOO"),
        ("margin", -0.1),
        ("margin", float("nan")),
        ("mpp_override", 0.0),
        ("n_workers", 0),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(argument, value) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be .*got {value!r}"):
        PredictSettings(**{argument: value})


def test_paths_in_settings_may_be_text(discs, tmp_path, segmenter) -> None:
    (tmp_path / "r").mkdir()
    write_regions([Region("g", ((9, 9), (60, 9), (60, 60)))], tmp_path / "r" / "a.tif.geojson")
    found = crops(discs, tmp_path / "out", mpp=4.0, regions=str(tmp_path / "r"))
    assert list(found.regions) == [("slide a", "g")]
    found = crops(discs, tmp_path / "other", mpp=4.0, detector=str(segmenter))
    assert len(found.scores) == 1


def test_slides_without_regions_are_told_the_argument_and_the_option(discs, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"`regions`.*--detect") as caught:
        crops(discs, tmp_path / "out", mpp=4.0)
    assert "--regions" in caught.value.message


def test_a_crop_that_is_listed_twice_is_counted_once_and_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)
    for name, image in zip("abcd", (*pixels, pixels[0]), strict=True):
        write_image(image, tmp_path / f"{name}.png")
    Image.fromarray(pixels[0]).save(tmp_path / "e.tif")  # other bytes, the same pixels
    lines = ["image_id,image_path,patient_id,slide_id,x,y,width,height"]
    lines += [
        "a,a.png,p1,s1,0,0,200,200",
        "b,b.png,p1,s1,20,10,200,200",  # the place of a
        "c,c.png,p1,s2,0,0,200,200",
        "d,d.png,p2,s3,0,0,200,200",  # the pixels of a, of another patient
        "e,e.tif,p1,s4,900,0,200,200",  # the pixels of a
    ]
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    found = crops(tmp_path / "m.csv", tmp_path / "out", mpp=None)
    assert found.manifest.table["image_id"].tolist() == ["a", "c", "d"]
    (note,) = [one for one in found.notes if one.case == "p1"]
    assert "b = a" in note.en
    assert "e = a" in note.en
    assert any("b = a" in line for line in found.region_lines)


def test_a_crop_around_several_others_is_not_counted_and_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["image_id,image_path,patient_id,slide_id,x,y,width,height"]
    places = {"wide": (0, 0, 500, 500), "a": (30, 60, 200, 200), "b": (270, 220, 200, 200)}
    for name, place in places.items():
        pixels = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
        write_image(pixels, tmp_path / f"{name}.png")
        lines.append(",".join(map(str, (name, f"{name}.png", "p1", "s1", *place))))
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    found = crops(tmp_path / "m.csv", tmp_path / "out", mpp=None)
    assert found.manifest.table["image_id"].tolist() == ["a", "b"]
    ((slide, name, reason),) = [(one.slide, one.region, one.reason) for one in found.failures]
    assert (slide, name) == ("s1", "wide")
    assert "'a'" in reason
    assert found.patients["s1"] == "p1"  # whose report lists it
