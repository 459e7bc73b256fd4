"""Masks of every kind become the same bits: present, known, core."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from glomerulab.errors import ImageFileError, RegionError
from glomerulab.slides.regions.features import Feature, Part
from glomerulab.training.segmentation.masks import (
    IGNORE,
    Labels,
    Outlines,
    Vocabulary,
    cores_of,
    read_label_image,
    read_mask_images,
)

STRUCTURES = ("tubule", "glomerulus", "tuft")
TUBULE, GLOMERULUS, TUFT = 1, 2, 4
ALL_KNOWN = Vocabulary(STRUCTURES, STRUCTURES)


def label_image(
    path: Path,
    pixels: np.ndarray,
    values: dict[int, tuple[str, ...]],
    vocabulary: Vocabulary = ALL_KNOWN,
    *,
    size: tuple[int, int] | None = None,
) -> Labels:
    Image.fromarray(pixels).save(path)
    own = size or (pixels.shape[1], pixels.shape[0])
    return read_label_image(path, own, values, vocabulary, mpp=1.0, sampling=own)


def square(left: int, top: int, side: int) -> tuple[tuple[float, float], ...]:
    right, bottom = left + side, top + side
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def feature(name: str, *parts: Part, number: int = 1) -> Feature:
    return Feature(f"feature {number}", str(number), classes=(name,), parts=parts)


def draw(*features: Feature, vocabulary: Vocabulary = ALL_KNOWN) -> Labels:
    classes = {"Glom": ("glomerulus",), "Tuft": ("tuft",), "Tub": ("tubule",), "?": (IGNORE,)}
    outlines = Outlines.of(features, classes, mpp=(1.0, 1.0))
    return outlines.draw(vocabulary, (0.0, 0.0), (1.0, 1.0), (60, 40))


def test_values_stand_for_structures_and_those_that_hold_them(tmp_path: Path) -> None:
    pixels = np.array([[0, 1, 2, 9]], np.uint8)
    values = {1: ("glomerulus",), 2: ("tuft",), 9: (IGNORE,)}
    labels = label_image(tmp_path / "m.png", pixels, values)
    assert labels.present.tolist() == [[0, GLOMERULUS, GLOMERULUS | TUFT, 0]]
    assert labels.known.tolist() == [[7, 7, 7, 0]]


def test_what_a_set_does_not_know_is_known_only_where_it_is_marked(tmp_path: Path) -> None:
    vocabulary = Vocabulary(STRUCTURES, ("tuft",))
    values = {2: ("tuft",)}
    labels = label_image(tmp_path / "m.png", np.array([[0, 2]], np.uint8), values, vocabulary)
    targets = labels.targets(3, [])
    assert targets[:, 0, 0].tolist() == [2, 2, 0]
    assert targets[:, 0, 1].tolist() == [0, 1, 1]  # no tubule lies in a tuft


def test_structures_lie_apart_unless_one_holds_the_other() -> None:
    names = ("cortex", "tubule", "atrophic_tubule", "artery", "glomerulus", "tuft", "my_own")
    apart = Vocabulary(names).exclusions()
    bit = {name: 1 << k for k, name in enumerate(names)}
    others = bit["artery"] | bit["glomerulus"] | bit["tuft"]
    assert apart[bit["tubule"]] == apart[bit["atrophic_tubule"]] == others
    tubules = bit["tubule"] | bit["atrophic_tubule"]
    assert apart[bit["tuft"]] == tubules | bit["artery"]
    assert bit["cortex"] not in apart
    assert bit["my_own"] not in apart


@pytest.mark.parametrize("mode", ["L", "I;16", "P", "RGB", "1"])
def test_masks_of_every_pixel_type_are_read(tmp_path: Path, mode: str) -> None:
    grey = np.array([[0, 255, 0]], np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) if mode == "I;16" else grey)
    image = image if mode == "I;16" else image.convert(mode)
    if mode == "P":
        image.putdata([0, 255, 0])
    image.save(tmp_path / "m.png")
    values = {255: ("tubule",)}
    labels = read_label_image(
        tmp_path / "m.png", (3, 1), values, ALL_KNOWN, mpp=1.0, sampling=(3, 1)
    )
    assert labels.present.tolist() == [[0, TUBULE, 0]]


def test_colours_stand_for_structures(tmp_path: Path) -> None:
    pixels = np.array([[(0, 0, 0), (255, 0, 128)]], np.uint8)
    labels = label_image(tmp_path / "m.png", pixels, {0xFF0080: ("tubule",)})
    assert labels.present.tolist() == [[0, TUBULE]]


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match=r"3 x 1.*4 x 1") as caught:
        label_image(tmp_path / "m.png", np.zeros((1, 3), np.uint8), {}, size=(4, 1))
    assert "m.png" in str(caught.value.where)


def test_values_outside_the_table_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="5"):
        label_image(tmp_path / "m.png", np.array([[0, 5]], np.uint8), {1: ("tubule",)})
    noisy = np.arange(20, dtype=np.uint8)[None]
    with pytest.raises(ImageFileError, match="JPEG"):
        label_image(tmp_path / "m.png", noisy, {1: ("tubule",)})


def test_a_mask_that_is_no_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(b"no image")
    with pytest.raises(ImageFileError, match="mask"):
        read_mask_images({"tubule": path}, (1, 1), ALL_KNOWN, mpp=1.0, sampling=(1, 1))


def test_masks_of_single_structures_are_put_together(tmp_path: Path) -> None:
    for name, row in (("glomerulus", [0, 255, 255]), ("tubule", [3, 0, 0])):
        Image.fromarray(np.array([row], np.uint8)).save(tmp_path / f"{name}.png")
    paths = {name: tmp_path / f"{name}.png" for name in ("glomerulus", "tubule")}
    labels = read_mask_images(paths, (3, 1), ALL_KNOWN, mpp=1.0, sampling=(3, 1))
    assert labels.present.tolist() == [[TUBULE, GLOMERULUS, GLOMERULUS]]


def test_cores_part_objects_that_touch() -> None:
    objects = np.zeros((40, 60), int)
    objects[5:35, 5:30], objects[5:35, 30:55] = 1, 2
    cores, n = ndimage.label(cores_of(objects, mpp=1.0))
    assert n == 2
    assert not cores[:, 26:34].any()
    assert cores[20, 15]
    assert cores[20, 45]


def test_the_border_of_a_glomerulus_is_wider_than_that_of_a_tubule() -> None:
    rows, columns = np.indices((260, 460))
    objects = np.zeros((260, 460), int)
    for number, (x, y, radius) in enumerate([(110, 130, 100), (309, 130, 100), (428, 40, 20)], 1):
        objects[np.hypot(columns - x, rows - y) < radius] = number
    cores = cores_of(objects, mpp=1.0)
    assert not cores[130, 191:229].any()
    assert cores[130, 110:185].all()
    assert cores[40, 428 - 14 : 428 + 14].all()
    assert ndimage.label(cores)[1] == 3


def test_the_smallest_object_has_a_core() -> None:
    objects = np.zeros((9, 9), int)
    objects[4, 4] = 1
    assert cores_of(objects, mpp=1.0).sum() == 1
    assert cores_of(np.ones((9, 9), int), mpp=1.0).all()


def test_outlines_are_drawn_with_their_holes_and_cores() -> None:
    labels = draw(feature("Glom", Part(square(10, 5, 30), (square(20, 15, 10),))))
    mask = np.zeros((40, 60), bool)
    mask[5:35, 10:40] = True
    mask[15:25, 20:30] = False
    np.testing.assert_array_equal(labels.present == GLOMERULUS, mask)
    assert (labels.core[mask] > 0).any()
    assert not labels.core[~mask].any()
    assert labels.core[5, 10] == 0


def test_a_part_of_the_image_is_drawn_as_it_is_cut_from_the_whole() -> None:
    one = feature("Tub", Part(((3.2, 4.1), (50.7, 8.3), (30.1, 38.2))))
    outlines = Outlines.of([one], {"Tub": ("tubule",)}, mpp=(1.0, 1.0))
    whole = outlines.draw(ALL_KNOWN, (0, 0), (1, 1), (60, 40))
    part = outlines.draw(ALL_KNOWN, (10, 5), (1, 1), (30, 20))
    np.testing.assert_array_equal(part.present, whole.present[5:25, 10:40])
    np.testing.assert_array_equal(part.core, whole.core[5:25, 10:40])


def test_an_outline_that_crosses_itself_is_mended_and_told() -> None:
    bow_tie = ((10.0, 10.0), (30.0, 30.0), (30.0, 10.0), (10.0, 30.0))
    outlines = Outlines.of([feature("Glom", Part(bow_tie))], {"Glom": ("glomerulus",)}, mpp=(1, 1))
    labels = outlines.draw(ALL_KNOWN, (0, 0), (1, 1), (60, 40))
    assert labels.present[20, 12]
    assert labels.present[20, 28]
    assert not labels.present[12, 20]
    assert len(outlines.notes) == 1
    assert "feature 1" in outlines.notes[0]


def test_a_damaged_object_would_count_as_background_and_is_refused() -> None:
    damaged = Feature("feature 2", "2", classes=("Glom",), failure="it has no x")
    with pytest.raises(RegionError, match=r"feature 2.*no x"):
        draw(feature("Glom", Part(square(5, 5, 10))), damaged)


def test_objects_without_area_and_other_classes_are_told_and_left_out() -> None:
    good = feature("Glom", Part(square(5, 5, 10)))
    features = [
        good,
        Feature("feature 2", "2", classes=("Glom",), skipped="no area"),
        feature("Glom", Part(((1.0, 1.0), (2.0, 2.0))), number=3),
        feature("Vein", Part(square(30, 5, 10)), number=4),
    ]
    outlines = Outlines.of(features, {"Glom": ("glomerulus",)}, mpp=(1, 1))
    assert len(outlines.areas) == 1
    notes = " ".join(outlines.notes)
    for subject in ("feature 2", "feature 3", "Vein"):
        assert subject in notes
    with pytest.raises(RegionError, match="Vein"):
        Outlines.of(features[3:], {"Glom": ("glomerulus",)}, mpp=(1, 1))


def test_nothing_is_known_where_the_outlines_say_ignore() -> None:
    labels = draw(feature("?", Part(square(0, 0, 20))), feature("Glom", Part(square(30, 5, 10))))
    assert (labels.known[:20, :20] == 0).all()
    assert (labels.known[:, 20:] == 7).all()
