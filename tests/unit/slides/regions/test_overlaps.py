import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely import Polygon

from glomerulab.geometry import Box, Region
from glomerulab.slides.regions.overlaps import count_once, find_repeats
from glomerulab.slides.regions.polygons import area
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL

PLACES = st.tuples(st.floats(0, 2000), st.floats(0, 2000))


def disc(name, x=500.0, y=500.0, radius=100.0, *, labels=(), n=40, start=0.0):
    """A round outline."""
    turns = [start + 2 * math.pi * k / n for k in range(n)]
    ring = tuple((x + radius * math.cos(t), y + radius * math.sin(t)) for t in turns)
    return Region(name, ring, labels)


def kept(regions, **options) -> list[str]:
    return [one.region_id for one in count_once(regions, **options).regions]


@pytest.mark.parametrize(
    "again",
    [
        disc("again"),
        disc("again", n=40, start=0.3),  # the same outline from another first point
        disc("again", x=512, y=494, radius=93, n=23),  # drawn by hand a second time
        disc("again", radius=130),
        disc("again", x=550),
        Region("again", tuple(reversed(disc("a").polygon))),
        Region.from_box("again", Box(400, 400, 200, 200)),
    ],
)
def test_an_outline_drawn_twice_is_counted_once(again):
    found = count_once([disc("first"), again, disc("other", x=900)])
    assert [one.region_id for one in found.regions] == ["first", "other"]
    assert [(one.region_id, counted.region_id) for one, counted in found.repeats] == [
        ("again", "first")
    ]


def test_neighbours_that_touch_are_two():
    assert kept([disc("a"), disc("b", x=690), disc("c", y=675, radius=80)]) == ["a", "b", "c"]


def test_boxes_of_neighbours_overlap_more_than_the_glomeruli():
    small = Region.from_box("small", Box(560, 560, 60, 60))  # in the corner of the large box
    assert kept([Region.from_box("large", Box(380, 380, 240, 240)), small]) == ["large", "small"]


def test_a_segment_is_counted_as_its_glomerulus():
    segments = [disc("s1", x=460, radius=20), disc("s2", x=550, radius=15)]
    assert kept([segments[0], disc("whole"), segments[1]], mpp_xy=(1.0, 1.0)) == ["whole"]


def test_an_outline_around_glomeruli_is_refused_and_they_are_counted():
    tissue = disc("cortex", radius=2000)
    regions = [tissue, disc("a"), disc("b", x=900), disc("b again", x=900)]
    for mpp_xy in (None, (1.0, 1.0)):
        found = count_once(regions, mpp_xy=mpp_xy)
        assert [one.region_id for one in found.regions] == ["a", "b"]
        ((refused, reason),) = found.refused
        assert refused == tissue
        assert "--skip-class" in reason


@pytest.mark.parametrize("mpp_xy", [None, (0.5, 0.5), (1.0, 1.0)])
@pytest.mark.parametrize("n", [2, 3])
def test_an_outline_of_the_size_of_a_glomerulus_around_several_is_refused(mpp_xy, n):
    both = disc("both", radius=190)
    inner = [disc(f"i{k}", x=420 + 80 * k, y=380 if k == 1 else 520, radius=60) for k in range(n)]
    for regions in ([both, *inner], [*inner, both]):
        found = count_once(regions, mpp_xy=mpp_xy)
        assert [one.region_id for one in found.regions] == [one.region_id for one in inner]
        assert [one.region_id for one, _ in found.refused] == ["both"]


def test_two_proposals_do_not_outvote_a_drawn_outline():
    labels = (PROPOSAL_LABEL,)
    inner = [disc(f"p{k}", x=420 + 160 * k, radius=60, labels=labels) for k in range(2)]
    for mpp_xy in (None, (1.0, 1.0)):
        assert kept([disc("drawn", radius=180), *inner], mpp_xy=mpp_xy) == ["drawn"]


def test_a_drawn_outline_is_kept_before_a_proposed_one():
    proposal = disc("p", radius=140, labels=(PROPOSAL_LABEL,))
    assert kept([proposal, disc("drawn")]) == ["drawn"]
    two = [disc("a", x=430, radius=60), disc("b", x=560, radius=60)]
    assert kept([proposal, *two]) == ["a", "b"]


def test_an_outline_with_a_class_is_kept_before_one_without():
    assert kept([disc("bare"), disc("classed", radius=98, labels=("Crescent",))]) == ["classed"]


def test_two_classes_of_one_outline_are_refused_where_labels_matter():
    regions = [disc("a", labels=("Normal",)), disc("b", labels=("Crescent",)), disc("c", x=900)]
    found = count_once(regions)
    assert [one.region_id for one in found.regions] == ["c"]
    assert [one.region_id for one, _ in found.refused] == ["a", "b"]
    assert all("Normal" in reason and "Crescent" in reason for _, reason in found.refused)
    assert kept(regions, labels_matter=False) == ["a", "c"]


def test_the_same_class_in_other_letters_is_no_contradiction():
    assert kept([disc("a", labels=("crescent",)), disc("b", labels=("Crescent",))]) == ["a"]


def test_a_hole_is_no_area():
    ring = Region("ring", disc("r").polygon, holes=(disc("h", radius=60).polygon,))
    assert kept([ring, disc("inner", radius=50)]) == ["ring", "inner"]


def test_an_outline_that_crosses_itself_is_found_again():
    bow = Region("bow", ((0, 0), (100, 100), (100, 0), (0, 100)))
    assert kept([bow, Region("again", bow.polygon)]) == ["bow"]


@given(st.lists(st.tuples(PLACES, st.floats(5, 300)), max_size=12))
def test_what_is_kept_shares_less_than_most(places):
    """Against the area of the polygons, pair by pair."""
    regions = [disc(str(n), *place, radius) for n, (place, radius) in enumerate(places)]
    found = count_once(regions, mpp_xy=(0.1, 0.1))
    assert len(found.regions) + len(found.repeats) == len(regions)
    for one in found.regions:
        for other in found.regions:
            if one is not other:
                shared = Polygon(one.polygon).intersection(Polygon(other.polygon)).area
                smaller = min(area(one.polygon), area(other.polygon))
                assert shared < 2 / 3 * smaller * (1 + 1e-9) or _met_before(found, one, other)


def _met_before(found, one, other) -> bool:
    """Whether one of two stands for a repeated outline that is larger than itself."""
    counted = [best.region_id for _, best in found.repeats]
    return one.region_id in counted or other.region_id in counted


def test_a_region_that_is_there_already_is_found():
    present = [disc("old"), disc("far", x=3000)]
    found = list(find_repeats([disc("new", radius=90), disc("own", x=900)], present))
    assert [(one.region_id, old.region_id) for one, old in found] == [("new", "old")]
