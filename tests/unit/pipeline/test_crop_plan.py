import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from glomerulab.cohort.manifest import read_manifest
from glomerulab.cohort.slides_table import read_slides
from glomerulab.errors import ConfigError
from glomerulab.geometry import Box, Region
from glomerulab.pipeline.crop_plan import CropPlan, CropSettings, crop_image_id
from glomerulab.pipeline.extract import extract_crops
from glomerulab.slides.regions.features import RegionOptions
from glomerulab.slides.regions.files import write_regions
from glomerulab.slides.sources import OpenSlideSource
from glomerulab.taxonomy import load_taxonomy


def planned(source, regions_path, tmp_path, **settings) -> CropPlan:
    """Plan all slides of a source."""
    entries = read_slides(source)
    made = CropPlan(
        entries,
        regions_path,
        out=tmp_path / "out",
        settings=CropSettings(**settings),
        taxonomy=load_taxonomy("paper"),
        n_slides=len(entries),
    )
    for entry in entries:
        made.add(entry)
    return made


def plan(source, regions, tmp_path, **settings) -> CropPlan:
    """Write the regions and plan all slides of a source."""
    write_regions(regions, tmp_path / "r.csv")
    return planned(source, tmp_path / "r.csv", tmp_path, **settings)


def fingerprint(slide, regions, tmp_path, **settings) -> str | None:
    """Plan one slide and return its fingerprint."""
    write_regions(regions, tmp_path / "r.csv")
    (entry,) = read_slides(slide)
    return CropPlan(
        [entry],
        tmp_path / "r.csv",
        out=tmp_path / "out",
        settings=CropSettings(**settings),
        taxonomy=load_taxonomy("paper"),
        n_slides=1,
    ).add(entry)


def test_the_margin_is_a_share_of_the_longer_side(make_slide, tmp_path):
    made = plan(make_slide(), [Region.from_box("g", Box(200, 300, 200, 100))], tmp_path, margin=0.1)
    assert made.crops[0].task.box == Box(180, 280, 240, 140)
    assert made.crops[0].row["padded_share"] == 0.0


def test_slides_coarser_than_wanted_are_listed(make_slide, tmp_path):
    region = Region.from_box("g", Box(200, 300, 200, 100))
    assert plan(make_slide(mpp=0.5), [region], tmp_path, mpp=0.25).enlarged_slides == ["slide"]
    assert plan(make_slide(mpp=0.5), [region], tmp_path, mpp=0.5).enlarged_slides == []


def test_the_fingerprint_changes_with_the_regions_only(make_slide, tmp_path):
    slide = make_slide()
    one, two = (Region.from_box("g", Box(200, 300, side, 100)) for side in (200, 201))
    prints = [fingerprint(slide, [each], tmp_path) for each in (one, one, two)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    "settings", [{"mpp": 0.0}, {"mpp": 1000.0}, {"margin": -0.1}, {"image_format": "gif"}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        CropSettings(**settings)


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_image_ids_are_names_a_file_can_have_and_differ_for_different_regions(slide, one, two):
    first, second = crop_image_id(slide, one), crop_image_id(slide, two)
    for image_id in (first, second):
        assert 0 < len(image_id.encode()) <= 140
        assert not set(image_id) & set('/\\:*?"<>|\0 \n')
        assert not image_id.startswith(".")
    assert (first == second) == (one == two)


def test_further_columns_of_the_slides_table_reach_the_manifest_of_the_crops(make_slide, tmp_path):
    make_slide("a.tiff")
    (tmp_path / "slides.csv").write_text(
        "slide_path,patient_id,scanner,width\na.tiff,P1,NanoZoomer S60,wide\n"
    )
    regions = [Region.from_box(f"g{n}", Box(200 * n, 300, 100, 100)) for n in (1, 2)]
    made = plan(tmp_path / "slides.csv", regions, tmp_path, margin=0.0)
    assert [crop.row["scanner"] for crop in made.crops] == ["NanoZoomer S60"] * 2
    assert [crop.row["width"] for crop in made.crops] == [100, 100]  # extract's own column wins
    summary = extract_crops(
        tmp_path / "slides.csv", regions=tmp_path / "r.csv", out=tmp_path / "out"
    )
    table = read_manifest(summary.manifest_path).table
    assert table["scanner"].tolist() == ["NanoZoomer S60"] * 2
    assert table["patient_id"].tolist() == ["P1"] * 2


def test_two_regions_of_one_image_id_are_not_cut_over_each_other(make_slide, tmp_path):
    for name in ("a.tiff", "a__b.tiff"):
        make_slide(f"slides/{name}")
    box = Box(200, 300, 100, 100)
    regions = [
        Region.from_box("b__c", box, slide_id="a"),
        Region.from_box("c", box, slide_id="a__b"),
    ]
    made = plan(tmp_path / "slides", regions, tmp_path)
    first, second = (crop.row["image_id"] for crop in made.crops)
    assert first.startswith("a__b__c-")
    assert second == "a__b__c"
    assert made.failures == []


IDS = st.text(alphabet="a_", min_size=1, max_size=5)


@given(st.tuples(IDS, IDS), st.tuples(IDS, IDS))
def test_image_ids_of_two_slides_differ_whatever_other_slides_there_are(one, two):
    assert (crop_image_id(*one) == crop_image_id(*two)) == (one == two)


def test_two_region_files_for_one_slide_are_refused_by_name(make_slide, tmp_path):
    folder = tmp_path / "regions"
    folder.mkdir()
    slide = make_slide()
    for suffix in (".geojson", ".xml"):
        write_regions([Region.from_box("g", Box(9, 9, 9, 9))], folder / f"slide{suffix}")
    made = planned(slide, folder, tmp_path)
    assert made.crops == []
    assert "slide.geojson and slide.xml are both for slide 'slide'" in made.failures[0].reason


@pytest.mark.parametrize(
    ("name", "ignore_bounds", "corner"),
    [
        ("r.geojson", False, (240, 350)),
        ("r.geojson", True, (200, 300)),
        ("r.csv", False, (200, 300)),
    ],
)
def test_only_geojson_counts_from_the_bounds_unless_ignored(
    make_slide, tmp_path, monkeypatch, name, ignore_bounds, corner
):
    slide = make_slide()
    bounds = {"x": "40", "y": "50", "width": "900", "height": "700"}
    stated = {f"openslide.bounds-{key}": value for key, value in bounds.items()}
    # No format that states bounds can be written here: the properties are given as one would.
    own = OpenSlideSource.properties.fget
    monkeypatch.setattr(OpenSlideSource, "properties", property(lambda self: own(self) | stated))
    write_regions([Region.from_box("g", Box(200, 300, 100, 100))], tmp_path / name)
    made = planned(
        slide,
        tmp_path / name,
        tmp_path,
        margin=0.0,
        region_options=RegionOptions(ignore_bounds=ignore_bounds),
    )
    assert made.crops[0].task.box == Box(*corner, 100, 100)


def test_slides_of_regions_that_were_not_given_are_listed(make_slide, tmp_path):
    box = Box(200, 300, 100, 100)
    regions = [Region.from_box(f"g{n}", box, slide_id=n) for n in ("slide", "Slide", "s2")]
    made = plan(make_slide(), regions, tmp_path)
    assert [crop.region_id for crop in made.crops] == ["gslide"]
    assert made.other_slides == {"Slide", "s2"}


def test_the_fingerprint_of_a_plain_image_changes_with_its_pixels(tmp_path):
    region, prints = Region.from_box("g", Box(4, 4, 20, 20)), []
    for level in (10, 200, 10):
        Image.new("RGB", (64, 64), (level,) * 3).save(tmp_path / "a.bmp")  # always of one size
        prints.append(fingerprint(tmp_path / "a.bmp", [region], tmp_path, mpp_override=0.5))
    assert prints[0] == prints[2] != prints[1]


def test_a_region_that_is_not_finite_is_a_failure_and_the_others_are_cut(make_slide, tmp_path):
    table = tmp_path / "r.csv"
    table.write_text("region_id,x,y,width,height\ngood,200,300,90,90\nbad,nan,300,90,90\n")
    made = planned(make_slide(), table, tmp_path)
    assert [crop.region_id for crop in made.crops] == ["good"]
    assert [(one.slide, one.region) for one in made.failures] == [("slide", "bad")]
    assert "line 3" in made.failures[0].reason
    assert "not finite" in made.failures[0].reason


def test_each_region_is_named_if_all_are_broken(make_slide, tmp_path):
    table = tmp_path / "r.csv"
    table.write_text("region_id,x,y,width,height\nbad,nan,300,90,90\n")
    made = planned(make_slide(), table, tmp_path)
    assert [(one.slide, one.region) for one in made.failures] == [("slide", "bad")]


def test_one_file_for_several_slides_gives_each_its_broken_regions(make_slide, tmp_path):
    make_slide("a.tiff"), make_slide("b.tiff")
    (tmp_path / "s.csv").write_text("slide_path,slide_id\na.tiff,a\nb.tiff,b\n")
    table = tmp_path / "r.csv"
    head = "slide_id,region_id,x,y,width,height\n"
    table.write_text(f"{head}a,g,200,300,90,90\nb,g,200,300,90,90\nb,bad,inf,300,90,90\n")
    made = planned(tmp_path / "s.csv", table, tmp_path)
    assert len(made.crops) == 2
    assert [(one.slide, one.region) for one in made.failures] == [("b", "bad")]


def test_a_label_of_an_option_must_be_in_the_taxonomy(make_slide, tmp_path):
    region = Region.from_box("g", Box(200, 300, 200, 100))
    options = RegionOptions(classes=("Global sclerosis=gsgg",))
    with pytest.raises(ConfigError, match="gsgg"):
        plan(make_slide(), [region], tmp_path, region_options=options)
    with pytest.raises(ConfigError, match="needs a label"):
        RegionOptions(classes=("cgn=",))
