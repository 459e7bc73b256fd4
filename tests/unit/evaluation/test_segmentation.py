"""Dice is pooled over known pixels, objects are matched one to one."""

import numpy as np
import pytest

from glomerulab.evaluation.segmentation import (
    FieldCounts,
    count_field,
    score_structures,
    scores_summary,
    scores_table,
)
from glomerulab.structures.maps import MapFrame, StructureMap

SIDE = 300
FRAME = MapFrame(("glomerulus", "tuft"), SIDE, SIDE, (1.0, 1.0), (1.0, 1.0), (SIDE, SIDE))
GLOMERULUS, TUFT = 1, 2


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def as_map(*discs: tuple[float, float, float]) -> StructureMap:
    layer, core = np.zeros((2, SIDE, SIDE), np.uint16)
    for x, y, radius in discs:
        layer[disc(x, y, radius)] |= GLOMERULUS
        layer[disc(x, y, 0.6 * radius)] |= TUFT
        core[disc(x, y, 0.8 * radius)] |= GLOMERULUS
    return StructureMap(FRAME, layer, layer, layer, core)


def everywhere(bits: int = 3) -> np.ndarray:
    return np.full((SIDE, SIDE), bits, np.uint16)


TRUTH = as_map((60, 60, 40), (141, 60, 40), (200, 220, 50))


def count(proposed: StructureMap, known: np.ndarray | None = None) -> dict[str, FieldCounts]:
    found = count_field(
        TRUTH,
        proposed,
        everywhere() if known is None else known,
        ("glomerulus", "tuft"),
        field="f",
        group="g",
        stain="PAS",
    )
    return {one.structure: one for one in found}


def test_the_truth_itself_is_right_in_every_count() -> None:
    found = count(TRUTH)
    one = found["glomerulus"]
    assert one.n_true == one.n_proposed == one.n_shared == (TRUTH.likely & 1).sum()
    assert (one.objects, one.objects_proposed, one.objects_found) == (3, 3, 3)
    assert found["tuft"].objects == 0


def test_objects_are_matched_by_their_overlap() -> None:
    found = count(as_map((62, 60, 40), (250, 60, 40), (200, 220, 30)))["glomerulus"]
    assert (found.objects_proposed, found.objects_found) == (3, 1)


def test_unknown_pixels_and_the_objects_on_them_do_not_count() -> None:
    known = everywhere()
    known[:, 220:] = 0
    found = count(as_map((60, 60, 40), (141, 60, 40), (260, 60, 35)), known)["glomerulus"]
    assert (found.objects, found.objects_proposed, found.objects_found) == (3, 2, 2)
    known[:, 160:] = 0
    assert count(TRUTH, known)["glomerulus"].objects == 2
    assert found.n_true == (TRUTH.likely[:, :220] & 1).sum()


def counts(n_shared: int, group: str, stain: str) -> FieldCounts:
    return FieldCounts("f", group, stain, "glomerulus", 100, 100, n_shared, 2, 2, 1)


def test_scores_are_pooled_over_all_stains_and_for_each() -> None:
    scores = score_structures(
        [counts(90, "a", "PAS"), counts(50, "b", "HE"), counts(100, "c", "HE")]
    )
    by_stain = {one.stain: one for one in scores}
    assert by_stain["all"].dice == pytest.approx(0.8)
    assert by_stain["HE"].dice == pytest.approx(0.75)
    assert by_stain["HE"].n_groups == 2
    interval = by_stain["all"].dice_interval
    assert 0.5 <= interval.low < 0.8 < interval.high <= 1.0
    objects = by_stain["all"].objects
    assert objects is not None
    assert (objects.recall, objects.precision) == (0.5, 0.5)
    table = scores_table(scores)
    assert table["n_objects"].tolist() == [6, 4, 2]
    assert "0.80" in scores_summary(scores, "en")
    assert "0.80" in scores_summary(scores, "zh")


def test_a_structure_that_nobody_marked_or_found_has_no_dice() -> None:
    (one,) = score_structures([FieldCounts("f", "a", "", "tuft", 0, 0, 0)])
    assert np.isnan(one.dice)
    assert scores_summary([one], "en") == ""


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson 1927, eq. for 95 %, written out."""
    z = 1.959963984540054
    middle = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * (k * (n - k) / n + z * z / 4) ** 0.5
    return middle - half, middle + half


def objects(group: str, n_true: int, n_proposed: int, n_found: int) -> FieldCounts:
    return FieldCounts("f", group, "", "glomerulus", 9, 9, 9, n_true, n_proposed, n_found)


def test_intervals_of_objects_are_the_wider_of_groups_and_wilson() -> None:
    (one,) = score_structures([objects("a", 2, 2, 1), objects("b", 1, 1, 1)])
    found = one.objects
    assert found is not None
    assert (found.n_true, found.n_proposed, found.n_found) == (3, 3, 2)
    assert found.recall == found.precision == pytest.approx(2 / 3)
    low, high = wilson(2, 3)
    assert found.recall_interval.low == pytest.approx(low)  # group a twice would give 0.5
    assert found.recall_interval.high == 1.0 > high  # group b twice


def test_finding_everything_is_not_taken_for_certainty() -> None:
    (one,) = score_structures([objects(name, 1, 1, 1) for name in "abcdefgh"])
    assert one.objects is not None
    assert one.objects.recall_interval.low == pytest.approx(1 - 3 / 8)


def test_nothing_proposed_has_no_precision_and_no_recall_of_one() -> None:
    (one,) = score_structures([objects("a", 1, 0, 0)])
    assert one.objects is not None
    assert one.objects.recall == 0.0
    assert np.isnan(one.objects.precision)
