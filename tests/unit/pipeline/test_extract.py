import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from glomerulab.cohort.manifest import read_manifest
from glomerulab.cohort.validation import validate_manifest
from glomerulab.errors import ConfigError, GlomerulabError, OutputError, RegionError
from glomerulab.geometry import Box, Region
from glomerulab.images import read_image
from glomerulab.pipeline import crop_plan
from glomerulab.pipeline.crop_folder import write_failures
from glomerulab.pipeline.crop_plan import CropSettings, Failure
from glomerulab.pipeline.extract import extract_crops
from glomerulab.runtime import cluster
from glomerulab.runtime.cluster import open_workers
from glomerulab.runtime.resume import folder_lock
from glomerulab.slides.regions.features import RegionOptions
from glomerulab.slides.regions.files import write_regions
from glomerulab.slides.slide import open_slide


def boxes(n, *, size=120, labels=("cgn",), slide_id=None):
    return [
        Region.from_box(
            f"g{i}", Box(70 + 37 * i, 70 + 23 * i, size, size), labels=labels, slide_id=slide_id
        )
        for i in range(n)
    ]


@pytest.fixture
def cohort(make_slide, tmp_path) -> tuple[Path, Path]:
    slides, regions = tmp_path / "slides", tmp_path / "regions"
    regions.mkdir()
    for number, name in enumerate(("a", "b")):
        make_slide(f"slides/{name}.tiff", seed=number)
        write_regions(boxes(5), regions / f"{name}.geojson")
    return slides, regions


def test_crops_are_what_the_slide_reads_there(cohort, tmp_path):
    slides, regions = cohort
    out = tmp_path / "out"
    summary = extract_crops(slides, regions=regions, out=out, settings=CropSettings(mpp=0.8))
    assert summary.n_cut == 10
    assert summary.failures == ()
    assert not (out / "failures.csv").exists()
    manifest = read_manifest(summary.manifest_path)
    assert len(manifest.table) == 10
    for row, path in zip(manifest.table.itertuples(), manifest.image_paths(), strict=True):
        with open_slide(slides / f"{row.slide_id}.tiff") as slide:
            expected = slide.read_region(Box(row.x, row.y, row.width, row.height), mpp=0.8)
        np.testing.assert_array_equal(read_image(path), expected)
        assert (row.cgn, row.normal, row.fsg, row.mspgn) == (1, 0, 0, 0)


@pytest.mark.parametrize("kind", ["processes", "cluster"])
def test_two_workers_give_what_one_gives(cohort, tmp_path, kind):
    slides, regions = cohort
    one, two = tmp_path / "1", tmp_path / "2"
    extract_crops(slides, regions=regions, out=one)
    if kind == "processes":
        extract_crops(slides, regions=regions, out=two, n_workers=2)
    else:
        file = tmp_path / "cluster.toml"
        file.write_text('kind = "local"\njobs = 2\nmemory = "2GB"\n')
        with open_workers(cluster=file) as workers:
            extract_crops(slides, regions=regions, out=two, workers=workers)
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes()


@pytest.mark.parametrize("division", ["processes", "parts", "backwards", "slide by slide"])
def test_crops_of_two_slides_with_one_name_are_parted_alike(make_slide, tmp_path, division):
    regions, slides = tmp_path / "regions", tmp_path / "slides"
    regions.mkdir()
    for slide, region, side in (("a", "b__c", 120), ("a__b", "c", 80)):
        make_slide(f"slides/{slide}.tiff")
        box = Region.from_box(region, Box(70, 70, side, side), labels=("cgn",))
        write_regions([box], regions / f"{slide}.geojson")
    one, two = tmp_path / "1", tmp_path / "2"
    settings = CropSettings(has_masks=True)
    extract_crops(slides, regions=regions, out=one, settings=settings)
    if division == "slide by slide":
        for name in ("a", "a__b"):
            slide = slides / f"{name}.tiff"
            extract_crops(slide, regions=regions, out=two, settings=settings)
    for part in {"parts": (1, 2), "backwards": (2, 1)}.get(division, ()):
        extract_crops(slides, regions=regions, out=two, settings=settings, part=(part, 2))
    n_workers = 2 if division == "processes" else 1
    extract_crops(slides, regions=regions, out=two, settings=settings, n_workers=n_workers)
    files = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    assert files == {path.relative_to(two) for path in two.rglob("*") if path.is_file()}
    assert [file for file in files if (one / file).read_bytes() != (two / file).read_bytes()] == []
    assert len([file for file in files if file.suffix == ".png"]) == 4  # two crops and two masks


def test_a_region_file_that_may_be_of_two_slides_is_of_none(make_slide, tmp_path):
    for name in "12":
        make_slide(f"{name}/slide.tiff")
    rows = ["slide_path,slide_id", "1/slide.tiff,one", "2/slide.tiff,two"]
    (tmp_path / "slides.csv").write_text("\n".join(rows))
    regions = tmp_path / "regions"
    regions.mkdir()
    write_regions(boxes(1), regions / "slide.geojson")
    write_regions(boxes(2), regions / "two.geojson")
    done = extract_crops(tmp_path / "slides.csv", regions=regions, out=tmp_path / "out")
    assert done.manifest.table["slide_id"].tolist() == ["two", "two"]
    (failure,) = done.failures
    assert failure.slide == "one"
    assert "one.geojson" in failure.reason


def test_a_part_in_which_no_region_has_the_class_is_done(cohort, tmp_path):
    slides, regions = cohort
    write_regions(boxes(2, labels=("gs",)), regions / "b.geojson")
    settings = CropSettings(region_options=RegionOptions(classes=("gs",)))
    one, two = tmp_path / "1", tmp_path / "2"
    extract_crops(slides, regions=regions, out=one, settings=settings)
    for part in (1, 2):
        extract_crops(slides, regions=regions, out=two, settings=settings, part=(part, 2))
    extract_crops(slides, regions=regions, out=two, settings=settings)
    for name in ("manifest.csv", "failures.csv"):
        assert (one / name).is_file() == (two / name).is_file()
        assert not (one / name).is_file() or (one / name).read_bytes() == (two / name).read_bytes()
    with pytest.raises(RegionError, match="classes are"):
        extract_crops(
            slides,
            regions=regions,
            out=tmp_path / "3",
            settings=CropSettings(region_options=RegionOptions(classes=("none",))),
        )


def test_parts_and_a_last_run_give_what_one_run_gives(cohort, tmp_path):
    slides, regions = cohort
    one, two = tmp_path / "1", tmp_path / "2"
    extract_crops(slides, regions=regions, out=one)
    for number in (2, 1):
        extract_crops(slides, regions=regions, out=two, part=(number, 2))
    assert not (two / "manifest.csv").exists()
    assert extract_crops(slides, regions=regions, out=two).n_cut == 0
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_parts_of_other_settings_are_refused(cohort, tmp_path):
    slides, regions = cohort
    extract_crops(slides, regions=regions, out=tmp_path / "out", part=(1, 2))
    with pytest.raises(OutputError, match="margin"):
        extract_crops(
            slides,
            regions=regions,
            out=tmp_path / "out",
            settings=CropSettings(margin=0.3),
            part=(2, 2),
        )


def test_a_part_deletes_nothing_of_the_others(cohort, tmp_path):
    slides, regions = cohort
    out = tmp_path / "out"
    extract_crops(slides, regions=regions, out=out, part=(1, 2))
    before = sorted(out.rglob("*"))
    with pytest.raises(ConfigError, match="--overwrite"):
        extract_crops(slides, regions=regions, out=out, part=(2, 2), overwrite=True)
    assert sorted(out.rglob("*")) == before


def test_a_second_run_cuts_only_what_is_missing(cohort, tmp_path):
    slides, regions = cohort
    out = tmp_path / "out"
    first = extract_crops(slides, regions=regions, out=out)
    before = first.manifest_path.read_bytes()
    crops = sorted((out / "crops").rglob("*.png"))
    crops[3].unlink()
    first.manifest_path.unlink()
    again = extract_crops(slides, regions=regions, out=out)
    assert (again.n_cut, again.n_existing) == (1, 9)
    assert again.manifest_path.read_bytes() == before


def test_slides_may_be_added_run_by_run(cohort, tmp_path):
    slides, regions = cohort
    out = tmp_path / "out"
    for name in ("a", "b", "a"):
        extract_crops(slides / f"{name}.tiff", regions=regions, out=out)
    table = read_manifest(out / "manifest.csv").table
    assert sorted(table["slide_id"]) == ["a"] * 5 + ["b"] * 5
    assert table["image_id"].is_unique


def test_other_settings_are_refused_with_the_way_out(cohort, tmp_path):
    slides, regions = cohort
    out = tmp_path / "out"
    extract_crops(slides, regions=regions, out=out)
    with pytest.raises(OutputError, match=r"mpp 0.5 then, 1.0 now.*--overwrite"):
        extract_crops(slides, regions=regions, out=out, settings=CropSettings(mpp=1.0))
    summary = extract_crops(
        slides, regions=regions, out=out, settings=CropSettings(mpp=1.0), overwrite=True
    )
    assert summary.n_cut == 10


def test_changed_regions_are_refused(cohort, tmp_path):
    slides, regions = cohort
    out = tmp_path / "out"
    extract_crops(slides, regions=regions, out=out)
    write_regions(boxes(5, size=100), regions / "b.geojson")
    with pytest.raises(OutputError, match="slide 'b', its regions"):
        extract_crops(slides, regions=regions, out=out)


def test_fingerprints_of_all_slides_are_kept(cohort, tmp_path):
    slides, regions = cohort
    for name in "ab":
        extract_crops(slides / f"{name}.tiff", regions=regions, out=tmp_path / "out")
    state = json.loads((tmp_path / "out" / "extract.json").read_text())
    assert list(state["fingerprints"]) == ["a", "b"]


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 99}', '{"version": 1}'])
def test_a_damaged_record_is_refused(cohort, tmp_path, content):
    slides, regions = cohort
    out = tmp_path / "out"
    out.mkdir()
    (out / "extract.json").write_text(content)
    with pytest.raises(OutputError, match="choose another") as caught:
        extract_crops(slides, regions=regions, out=out)
    assert caught.value.where == str(out)


def test_two_runs_do_not_share_a_folder(cohort, tmp_path):
    slides, regions = cohort
    with folder_lock(tmp_path, ".extract.lock"), pytest.raises(OutputError):
        extract_crops(slides, regions=regions, out=tmp_path)


def test_overwriting_deletes_only_what_extract_wrote(cohort, tmp_path):
    slides, regions = cohort
    out = tmp_path / "out"
    (out / "crops").mkdir(parents=True)
    with pytest.raises(OutputError, match="did not write"):
        extract_crops(slides, regions=regions, out=out, overwrite=True)
    (out / "crops").rmdir()
    (out / "notes.txt").write_text("mine")
    extract_crops(slides, regions=regions, out=out)
    (out / "crops" / "old.png").touch()
    extract_crops(slides, regions=regions, out=out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "crops" / "old.png").exists()


@pytest.mark.parametrize("n_slides", [1, 2])
def test_overwriting_keeps_the_old_crops_until_new_ones_can_be_cut(
    cohort, tmp_path, n_slides, monkeypatch
):
    monkeypatch.setattr(cluster, "WAIT_FOR_SCHEDULER", "0.2s")
    slides, regions = cohort
    out = tmp_path / "out"
    extract_crops(slides, regions=regions, out=out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    source = slides if n_slides == 2 else slides / "a.tiff"
    with open_workers(scheduler="tcp://127.0.0.1:9") as workers, pytest.raises(GlomerulabError):
        extract_crops(source, regions=regions, out=out, overwrite=True, workers=workers)
    no_such = CropSettings(region_options=RegionOptions(classes=("nothing",)))
    with pytest.raises(RegionError, match="--class"):
        extract_crops(source, regions=regions, out=out, overwrite=True, settings=no_such)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_crops_that_an_earlier_version_named_otherwise_are_refused(cohort, tmp_path, monkeypatch):
    slides, regions = cohort
    for name, region in (("a", "g__1"), ("b", "g1")):
        box = Region.from_box(region, Box(70, 70, 120, 120), labels=("cgn",))
        write_regions([box], regions / f"{name}.geojson")
    with monkeypatch.context() as patch:  # its rule
        patch.setattr(crop_plan, "crop_image_id", lambda slide, region: f"{slide}__{region}")
        extract_crops(slides, regions=regions, out=tmp_path / "out")
    again = extract_crops(slides / "b.tiff", regions=regions, out=tmp_path / "out")
    assert (again.n_cut, again.n_existing) == (0, 1)
    with pytest.raises(OutputError, match=r"'a'.*names of their crops.*--overwrite"):
        extract_crops(slides, regions=regions, out=tmp_path / "out")
    assert extract_crops(slides, regions=regions, out=tmp_path / "new").n_cut == 2
    assert extract_crops(slides, regions=regions, out=tmp_path / "new").n_existing == 2


@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize("n_slides", [1, 2])
def test_no_slide_is_opened_twice_here(cohort, tmp_path, monkeypatch, n_workers, n_slides):
    slides, regions = cohort
    opened = []

    def counted(path, **options):
        opened.append(path.stem)
        return open_slide(path, **options)

    monkeypatch.setattr("glomerulab.slides.cutting.open_slide", counted)
    source = slides if n_slides == 2 else slides / "a.tiff"
    extract_crops(source, regions=regions, out=tmp_path / "out", n_workers=n_workers)
    # several slides on several processes are opened there alone
    assert sorted(opened) == ([] if n_workers == n_slides == 2 else ["a", "b"][:n_slides])


def test_a_region_that_leaves_the_slide_is_padded_and_marked(make_slide, tmp_path):
    slide = make_slide(size=(1200, 900))
    write_regions([Region.from_box("g", Box(1100, 100, 200, 100))], tmp_path / "r.csv")
    settings = CropSettings(mpp=0.5, margin=0.0)
    summary = extract_crops(
        slide, regions=tmp_path / "r.csv", out=tmp_path / "o", settings=settings
    )
    assert summary.n_padded == 1
    manifest = read_manifest(summary.manifest_path)
    assert float(manifest.table["padded_share"].iloc[0]) == 0.5
    assert (read_image(manifest.image_paths()[0])[:, 100:] == (244, 242, 240)).all()


def test_bad_items_become_rows_and_the_others_are_done(cohort, tmp_path):
    slides, regions = cohort
    (slides / "broken.svs").write_bytes(b"junk")
    (slides / "c.tiff").write_bytes((slides / "a.tiff").read_bytes())
    outside = Region.from_box("far", Box(5000, 5000, 10, 10))
    both = Region.from_box("both", Box(300, 300, 50, 50), labels=("normal", "fsg"))
    write_regions([*boxes(2), outside, both], regions / "b.geojson")
    summary = extract_crops(slides, regions=regions, out=tmp_path / "out")
    assert summary.n_cut == 7
    failures = (tmp_path / "out" / "failures.csv").read_text()
    rows = list(csv.DictReader(failures.splitlines()))
    reasons = {(row["slide"], row["region"]): row["reason"] for row in rows}
    assert reasons.keys() == {("broken", ""), ("c", ""), ("b", "far"), ("b", "both")}
    assert "broken.svs: " in reasons["broken", ""]
    assert "no region file" in reasons["c", ""]
    assert "lies outside the slide" in reasons["b", "far"]
    assert "exclude each other" in reasons["b", "both"]


def test_an_outline_drawn_twice_is_cut_once_and_told(cohort, tmp_path):
    slides, regions = cohort
    first, *others = boxes(3)
    again = Region("again", first.polygon, first.labels)
    write_regions([first, *others, again], regions / "a.geojson")
    summary = extract_crops(slides, regions=regions, out=tmp_path / "out")
    assert (summary.n_cut, summary.failures) == (8, ())
    (line,) = (line for line in summary.region_lines() if "again = g0" in line)
    assert "counted once" in line


def test_two_classes_of_one_outline_are_failures_that_name_both(cohort, tmp_path):
    slides, regions = cohort
    first, *others = boxes(3)
    again = Region("again", first.polygon, ("normal",))
    write_regions([first, *others, again], regions / "a.geojson")
    summary = extract_crops(slides, regions=regions, out=tmp_path / "out")
    assert [one.region for one in summary.failures] == ["g0", "again"]
    assert all("cgn" in one.reason and "normal" in one.reason for one in summary.failures)


def test_unknown_classes_leave_labels_unknown_and_are_reported(make_slide, tmp_path):
    regions = [
        Region.from_box("t", Box(100, 100, 50, 50), labels=("Tubule",)),
        Region.from_box("g", Box(100, 200, 50, 50), labels=("Glomerulus", "新月体形成")),
    ]
    write_regions(regions, tmp_path / "r.geojson")
    summary = extract_crops(make_slide(), regions=tmp_path / "r.geojson", out=tmp_path / "o")
    assert summary.unknown_classes == {"Tubule": 1, "Glomerulus": 1}
    labels = read_manifest(summary.manifest_path).labels()
    assert np.isnan(labels[0]).all()
    assert labels[1].tolist() == [0, 0, 0, 1]


def test_a_class_that_was_asked_for_without_a_label_is_not_reported(make_slide, tmp_path):
    region = Region.from_box("g", Box(100, 200, 50, 50), labels=("Glomerulus",))
    write_regions([region], tmp_path / "r.geojson")
    options = RegionOptions(classes=("glomerulus",))
    summary = extract_crops(
        make_slide(),
        regions=tmp_path / "r.geojson",
        out=tmp_path / "o",
        settings=CropSettings(region_options=options),
    )
    assert summary.n_cut == 1
    assert summary.unknown_classes == {}


def test_a_slides_table_gives_patient_stain_and_mpp(make_slide, tmp_path):
    make_slide("slides/a.tiff", mpp=400.0)
    (tmp_path / "slides.csv").write_text(
        "slide_path,slide_id,patient_id,stain,mpp\nslides/a.tiff,S1,P007,PAS,0.25\n"
    )
    write_regions(boxes(1, slide_id="S1"), tmp_path / "r.csv")
    summary = extract_crops(tmp_path / "slides.csv", regions=tmp_path / "r.csv", out=tmp_path / "o")
    row = read_manifest(summary.manifest_path).table.iloc[0]
    assert (row["slide_id"], row["patient_id"], row["stain"]) == ("S1", "P007", "PAS")
    with pytest.raises(RegionError, match="no such region file"):
        extract_crops(tmp_path / "slides.csv", regions=tmp_path / "none", out=tmp_path / "o2")


def test_one_file_for_several_slides_must_name_them(cohort, tmp_path):
    slides, _ = cohort
    write_regions(boxes(2), tmp_path / "all.csv")
    with pytest.raises(RegionError, match="2 slides were given"):
        extract_crops(slides, regions=tmp_path / "all.csv", out=tmp_path / "o")
    write_regions(boxes(2, slide_id="a") + boxes(3, slide_id="b"), tmp_path / "all.csv")
    assert extract_crops(slides, regions=tmp_path / "all.csv", out=tmp_path / "o").n_cut == 5


def test_a_folder_that_extract_did_not_fill_is_unchanged(cohort, tmp_path):
    slides, regions = cohort
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.csv").write_text("mine")
    with pytest.raises(OutputError, match="did not write"):
        extract_crops(slides, regions=regions, out=out, overwrite=True)
    assert (out / "manifest.csv").read_text() == "mine"


def test_the_table_of_failures_is_deleted_when_there_are_none(tmp_path):
    failures = (Failure("s1", "g4", "outside the slide"), Failure("", "crop9", "cut, short"))
    path = tmp_path / "failures.csv"
    write_failures(path, failures, region_column="region_or_image")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["slide", "region_or_image", "reason"]
    assert rows[1:] == [[one.slide, one.region, one.reason] for one in failures]
    write_failures(path, (), region_column="region_or_image")
    assert not path.exists()


def test_crops_of_pixels_that_are_not_square_pass_the_check(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (800, 400, 3), dtype=np.uint8)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[282], tags[283], tags[296] = 10000.0, 20000.0, 3  # pixels of 1.0 x 0.5 µm
    Image.fromarray(pixels).save(tmp_path / "s1.tif", tiffinfo=tags)
    boxes = [Box(10, 20, 100, 200), Box(200, 300, 90, 240)]
    regions = [Region.from_box(str(number), box) for number, box in enumerate(boxes)]
    write_regions(regions, tmp_path / "s1.geojson")
    done = extract_crops(tmp_path / "s1.tif", regions=tmp_path / "s1.geojson", out=tmp_path / "out")
    assert validate_manifest(read_manifest(done.manifest_path)) == []
    assert done.scale_warnings == {"s1": []}


def test_a_failed_first_run_leaves_no_folder(cohort, tmp_path):
    slides, _ = cohort
    with pytest.raises(RegionError):
        extract_crops(slides, regions=tmp_path / "none.geojson", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
