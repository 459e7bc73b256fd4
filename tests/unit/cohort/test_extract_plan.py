import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.cohort.extract_plan import CropSettings, _image_id, plan_crops
from glomerulab.cohort.slides_table import read_slides
from glomerulab.geometry import Box, Region
from glomerulab.slides.regions import write_regions
from glomerulab.taxonomy import load_taxonomy


def plan(slide, regions, tmp_path, **settings):
    write_regions(regions, tmp_path / "r.csv")
    return plan_crops(
        read_slides(slide),
        tmp_path / "r.csv",
        out=tmp_path / "out",
        settings=CropSettings(**settings),
        taxonomy=load_taxonomy("paper"),
    )


def test_the_margin_is_a_share_of_the_longer_side(make_slide, tmp_path):
    made = plan(make_slide(), [Region.from_box("g", Box(200, 300, 200, 100))], tmp_path, margin=0.1)
    assert made.crops[0].task.box == Box(180, 280, 240, 140)
    assert made.crops[0].row["padded_share"] == 0.0


def test_slides_coarser_than_wanted_are_told(make_slide, tmp_path):
    region = Region.from_box("g", Box(200, 300, 200, 100))
    assert plan(make_slide(mpp=0.5), [region], tmp_path, mpp=0.25).enlarged_slides == ["slide"]
    assert plan(make_slide(mpp=0.5), [region], tmp_path, mpp=0.5).enlarged_slides == []


def test_the_fingerprint_changes_with_the_regions_only(make_slide, tmp_path):
    slide = make_slide()
    one, two = (Region.from_box("g", Box(200, 300, side, 100)) for side in (200, 201))
    prints = [plan(slide, [each], tmp_path).fingerprints["slide"] for each in (one, one, two)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    "settings", [{"mpp": 0.0}, {"mpp": 1000.0}, {"margin": -0.1}, {"image_format": "gif"}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        CropSettings(**settings)


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_image_ids_are_names_a_file_can_have_and_differ_for_different_regions(slide, one, two):
    first, second = _image_id(slide, one), _image_id(slide, two)
    for image_id in (first, second):
        assert 0 < len(image_id.encode()) <= 140
        assert not set(image_id) & set('/\\:*?"<>|\0 \n')
        assert not image_id.startswith(".")
    assert (first == second) == (one == two)
