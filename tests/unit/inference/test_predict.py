import csv
from pathlib import Path

import numpy as np
import pytest

from glomerulab.case_folder import read_case_folder
from glomerulab.errors import CheckpointError, ConfigError, PredictionsError
from glomerulab.geometry import Box, Region
from glomerulab.inference.predict import PredictSettings, predict
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.regions import write_regions
from tests.cases import COLOURS, picture


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


def test_a_second_run_says_the_same(slides: Path, trained: Path, tmp_path: Path) -> None:
    run_on(slides, trained, tmp_path / "out")
    first = (tmp_path / "out" / "predictions.csv").read_bytes()
    run_on(slides, trained, tmp_path / "out")
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == first


def test_a_bad_slide_is_named_and_the_others_are_judged(slides, trained, tmp_path) -> None:
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


def test_a_manifest_is_judged_as_it_is(trained: Path, tmp_path: Path) -> None:
    done = predict(trained / "manifest.csv", trained, tmp_path / "out")
    assert done.n_images == 84
    case = read_case_folder(tmp_path / "out" / "predictions.csv")
    right = sum(
        f"i{number}" == call.image_id and call.called == {list(COLOURS)[number % 4]}
        for number, call in enumerate(case.calls)
    )
    assert right > 76


def test_slides_without_regions_say_what_is_missing(slides, trained, tmp_path) -> None:
    with pytest.raises(ConfigError, match="--regions"):
        predict(slides / "s1.tif", trained, tmp_path / "out")


def test_a_truncated_checkpoint_is_refused(own_run: Path, slides, tmp_path) -> None:
    path = next((own_run / "checkpoint").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="SHA-256"):
        run_on(slides, own_run, tmp_path / "out")


def test_nothing_readable_is_an_error(own_run: Path, tmp_path) -> None:
    (tmp_path / "m.csv").write_text("image_id,image_path\na,missing.png\n")
    with pytest.raises(PredictionsError, match="not one image"):
        predict(tmp_path / "m.csv", own_run, tmp_path / "out")


def test_a_stain_nobody_trained_on_is_referred(slides, trained, tmp_path) -> None:
    table = slides / "slides.csv"
    table.write_text(table.read_text().replace(",PAS,", ",,"))
    run_on(slides, trained, tmp_path / "out", stain="PASM")
    case = read_case_folder(tmp_path / "out")
    assert all("stain_unseen" in call.reasons for call in case.calls)
