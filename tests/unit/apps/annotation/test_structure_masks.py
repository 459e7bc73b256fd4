import csv
import tomllib
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion
from shapely import Polygon
from skimage.draw import polygon

from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.regions import RegionInput, save_region
from glomerulab.apps.annotation.structure_masks import write_masks
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import RegionError
from glomerulab.geometry import Region
from glomerulab.images import read_image
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL
from glomerulab.training.segmentation.config import read_segmenter_config
from glomerulab.training.segmentation.sets import open_fields
from tests.support.annotation_studies import OWNER, make_study

ROUND = tuple(
    (300 + 130 * float(np.cos(turn)), 260 + 90 * float(np.sin(turn)))
    for turn in np.linspace(0, 2 * np.pi, 40, endpoint=False)
)
HOLE = ((280.0, 240.0), (320.0, 240.0), (320.0, 280.0), (280.0, 280.0))
AROUND = np.ones((3, 3), dtype=bool)
"""A pixel and its eight neighbours."""


def _draw(store: Store, slide_id: str, outline: tuple, *labels: str, **more: object) -> None:
    login = more.pop("login", "anna")
    box = Region("r", outline).box()
    shape = RegionInput(
        uuid4().hex, slide_id, box, 0, str(uuid4()), labels=labels, outline=outline, **more
    )
    save_region(store, shape, login=login)


def _mask(folder: Path, structure: str, slide_id: str) -> np.ndarray:
    pixels = np.asarray(Image.open(folder / "masks" / structure / f"{slide_id}.png"))
    assert set(np.unique(pixels)) <= {0, 255}
    return pixels > 0


@pytest.fixture
def slides(make_slide: Callable[..., Path]) -> list[SlideEntry]:
    return [SlideEntry(make_slide(f"S-{n}.tiff"), f"S-{n}", "p9", "PAS") for n in (1, 2, 3)]


def test_a_mask_is_the_polygon_without_its_holes(
    store: Store, tmp_path: Path, slides: list[SlideEntry]
) -> None:
    make_study(store, n_images=0)
    _draw(store, "S-1", ROUND, "tubule", holes=(HOLE,))
    done = write_masks(store, slides[:1], tmp_path, by=OWNER, mpp=1.0)
    assert (done.n_slides, done.n_shapes) == (1, {"tubule": 1})
    mask = _mask(tmp_path, "tubule", "S-1")
    image = read_image(tmp_path / "images" / "S-1.png")
    assert mask.shape == image.shape[:2]
    with Image.open(slides[0].path) as level_0:
        scale = level_0.width / mask.shape[1]
    expected = np.zeros(mask.shape, dtype=bool)
    for ring, value in ((ROUND, True), (HOLE, False)):
        x, y = np.array(ring).T / scale
        expected[polygon(y, x, mask.shape)] = value
    assert not np.any(mask & ~binary_dilation(expected, AROUND))
    assert not np.any(binary_erosion(expected, AROUND) & ~mask)
    area = Polygon(ROUND, [HOLE]).area / scale**2
    assert mask.sum() == pytest.approx(area, rel=0.01)


def test_each_structure_has_a_mask_and_the_training_knows_what_every_slide_has(
    store: Store, tmp_path: Path, slides: list[SlideEntry]
) -> None:
    make_study(store, n_images=0)
    _draw(store, "S-1", ROUND)
    _draw(store, "S-1", HOLE, "Glomerular tuft")
    _draw(store, "S-2", ROUND, "Glomerulus")
    _draw(store, "S-2", HOLE, PROPOSAL_LABEL)
    done = write_masks(store, slides, tmp_path, by=OWNER, mpp=2.0)
    assert (done.n_slides, done.n_proposals, done.without_shapes) == (2, 1, ["S-3"])
    assert done.n_shapes == {"glomerulus": 2, "tuft": 1}
    assert _mask(tmp_path, "tuft", "S-1").any()
    assert not _mask(tmp_path, "tuft", "S-2").any()
    np.testing.assert_array_equal(
        _mask(tmp_path, "glomerulus", "S-1"), _mask(tmp_path, "glomerulus", "S-2")
    )
    rows = list(csv.DictReader((tmp_path / "images.csv").read_text().splitlines()))
    assert rows[0] == {"image": "images/S-1.png", "patient_id": "p9", "stain": "PAS", "mpp": "2.0"}
    (only,) = tomllib.loads((tmp_path / "segmenter.toml").read_text())["sets"]
    assert only["knows"] == ["glomerulus"]
    assert only["folders"] == {"glomerulus": "glomerulus", "tuft": "tuft"}


def test_a_segmenter_is_trained_on_what_was_written(
    store: Store, tmp_path: Path, slides: list[SlideEntry]
) -> None:
    make_study(store, n_images=0)
    for slide_id in ("S-1", "S-2"):
        _draw(store, slide_id, ROUND)
    write_masks(store, slides, tmp_path, by=OWNER, mpp=1.0)
    fields = open_fields(read_segmenter_config(tmp_path / "segmenter.toml"))
    assert fields.failures == []
    assert [one.facts.group for one in fields.usable] == ["p9", "p9"]
    for one in fields.usable:
        side = min(one.size)
        _, labels = one.read((one.size[0] / 2, one.size[1] / 2), side, side)
        assert (labels.known & 1).all()  # glomeruli were drawn on every slide
        assert (labels.present & 1).any()


def test_the_shapes_of_one_annotator_and_slides_that_fail(
    store: Store, tmp_path: Path, slides: list[SlideEntry]
) -> None:
    make_study(store, n_images=0)
    _draw(store, "S-1", ROUND)
    _draw(store, "S-2", ROUND, login="bo")
    with pytest.raises(RegionError, match="no shape"):
        write_masks(store, slides[1:], tmp_path, by=OWNER, mpp=1.0, annotator="anna")
    broken = SlideEntry(tmp_path / "broken.tiff", "S-2", "p9", "PAS")
    broken.path.write_bytes(b"no slide")
    done = write_masks(store, [slides[0], broken], tmp_path / "out", by=OWNER, mpp=1.0)
    assert (done.n_slides, list(done.failures)) == (1, ["S-2"])
    done = write_masks(store, slides[:1], tmp_path / "fine", by=OWNER, mpp=0.01)
    assert "million pixels" in done.failures["S-1"]
