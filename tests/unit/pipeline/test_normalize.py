from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.leakage import TargetLeak, recheck_target_leaks
from glomerulab.cohort.manifest import (
    Manifest,
    manifest_from_rows,
    read_manifest,
    write_manifest,
)
from glomerulab.cohort.schema import STAINS
from glomerulab.errors import LeakageError, ManifestError, OutputError, StainError
from glomerulab.images import read_image, write_image
from glomerulab.pipeline.normalize import normalize_manifest
from glomerulab.pipeline.normalize_records import Record, normalized_manifest
from glomerulab.stain.fitting import fit
from glomerulab.stain.normalize import normalize
from glomerulab.stain.reference import STAIN_PRIORS, read_reference
from glomerulab.taxonomy import load_taxonomy
from tests.support.beer_lambert import HE, PAS, TARGET_HE, section, worst_angle

TARGETS = {
    "HE": fit(section(100, dyes=TARGET_HE).image, "HE", source="target.png"),
    "PAS": fit(section(101, dyes=PAS).image, "PAS"),
}
BLANK = np.clip(np.random.default_rng(0).normal(242, 1.5, (96, 96, 3)), 0, 255).astype(np.uint8)


@pytest.fixture
def cohort(tmp_path: Path) -> Manifest:
    """Two HE slides and one PAS slide of two crops each; one crop has eosin only, one is blank."""
    folder = tmp_path / "cohort"
    folder.mkdir()
    crops = {
        "he/1": (section(1, size=96).image, "s1", "HE"),
        "he/2": (section(2, size=96, strength=(0.0, 1.0)).image, "s1", "HE"),
        "he/3": (section(3, size=96, white=(130.0, 131.0, 129.0)).image, "s2", "HE"),
        "he/4": (BLANK, "s2", "HE"),
        "pas/1": (section(4, size=96, dyes=PAS).image, "s3", "PAS"),
        "pas/2": (section(5, size=96, dyes=PAS).image, "s3", "PAS"),
    }
    rows = []
    for image_id, (image, slide, stain) in crops.items():
        name = f"{image_id.replace('/', '-')}.png"
        write_image(image, folder / name)
        rows.append((image_id, name, slide, stain, "p1"))
    columns = ["image_id", "image_path", "slide_id", "stain", "patient_id"]
    return manifest_from_rows(
        pd.DataFrame(rows, columns=columns), folder=folder, taxonomy=load_taxonomy("paper")
    )


def _statuses(manifest: Manifest) -> dict[str, str]:
    return dict(zip(manifest.table["image_id"], manifest.table["stain_status"], strict=True))


def test_each_stain_goes_to_its_own_target(cohort: Manifest, tmp_path: Path) -> None:
    result = normalize_manifest(cohort, TARGETS, tmp_path / "out", per="image")
    assert _statuses(result.manifest) == {
        "he/1": "normalized",
        "he/2": "slide_stains",
        "he/3": "normalized",
        "he/4": "blank",
        "pas/1": "normalized",
        "pas/2": "normalized",
    }
    originals, news = cohort.image_paths(), result.manifest.image_paths()
    for place, stain in ((0, "HE"), (4, "PAS")):
        expected = normalize(read_image(originals[place]), TARGETS[stain]).image
        assert np.array_equal(read_image(news[place]), expected)


def test_the_new_manifest_records_the_source_of_each_image(
    cohort: Manifest, tmp_path: Path
) -> None:
    result = normalize_manifest(cohort, TARGETS, tmp_path / "out")
    again = read_manifest(result.path)
    assert again.image_paths() == result.manifest.image_paths()
    assert all(path.is_file() for path in again.image_paths())
    first = again.table.iloc[0]
    assert first["patient_id"] == "p1"
    assert first["normalized_from"] == "../cohort/he-1.png"
    assert first["stain_target"] == "targets/HE.json"
    assert read_reference(tmp_path / "out" / "targets" / "HE.json") == TARGETS["HE"]


def test_per_slide_all_crops_share_the_stains_of_their_slide(
    cohort: Manifest, tmp_path: Path
) -> None:
    result = normalize_manifest(cohort, TARGETS, tmp_path / "out", per="slide")
    slide = read_reference(tmp_path / "out" / "slides" / "s1.HE.json")
    assert worst_angle(slide.stain_matrix, section(1, size=32, dyes=HE).stain_matrix) < 1.5
    assert slide.n_sources == 2
    for place in (0, 1):
        expected = normalize(
            read_image(cohort.image_paths()[place]), TARGETS["HE"], source=slide
        ).image
        assert np.array_equal(read_image(result.manifest.image_paths()[place]), expected)
    assert _statuses(result.manifest)["he/4"] == "blank"


def test_an_image_that_cannot_be_normalised_passes_unchanged(
    cohort: Manifest, tmp_path: Path
) -> None:
    result = normalize_manifest(cohort, TARGETS, tmp_path / "out")
    assert np.array_equal(read_image(result.manifest.image_paths()[3]), BLANK)
    assert "tissue" in result.manifest.table["stain_reason"][3]
    assert result.n_by_status["blank"] == 1


def test_every_stain_with_a_prior_is_valid_in_a_manifest() -> None:
    assert set(STAIN_PRIORS) <= set(STAINS)


def test_h_dab_goes_from_manifest_to_manifest(tmp_path: Path) -> None:
    brown = ((0.65, 0.70, 0.29), (0.27, 0.57, 0.78))
    target = fit(section(1, dyes=brown).image, "H-DAB")
    write_image(section(2, size=96, dyes=brown).image, tmp_path / "a.png")
    row = {"image_id": ["a"], "image_path": ["a.png"], "stain": ["H-DAB"]}
    manifest = manifest_from_rows(
        pd.DataFrame(row), folder=tmp_path, taxonomy=load_taxonomy("paper")
    )
    result = normalize_manifest(manifest, {"H-DAB": target}, tmp_path / "out", per="image")
    assert _statuses(result.manifest) == {"a": "normalized"}
    assert read_manifest(result.path).table["stain"].tolist() == ["H-DAB"]


@pytest.mark.parametrize("per", ["slide", "image"])
def test_a_given_white_is_used_instead_of_the_estimated(
    cohort: Manifest, tmp_path: Path, per: str
) -> None:
    white = (241.0, 238.0, 242.0)
    result = normalize_manifest(cohort, TARGETS, tmp_path / "out", per=per, white=white)
    first = read_image(cohort.image_paths()[0])
    if per == "image":
        expected = normalize(first, TARGETS["HE"], white=white)
    else:
        slide = read_reference(tmp_path / "out" / "slides" / "s1.HE.json")
        assert slide.white == white
        expected = normalize(first, TARGETS["HE"], source=slide)
    assert np.array_equal(read_image(result.manifest.image_paths()[0]), expected.image)


def test_an_impossible_white_is_refused_before_anything_is_written(
    cohort: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="white"):
        normalize_manifest(cohort, TARGETS, tmp_path / "out", white=(0.0, 1.0, 300.0))
    assert not (tmp_path / "out").exists()


def test_strict_makes_it_an_error_after_the_others_are_done(
    cohort: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(StainError, match="he/4: blank"):
        normalize_manifest(cohort, TARGETS, tmp_path / "out", strict=True)
    assert len(list((tmp_path / "out" / "images").iterdir())) == 6


def test_a_target_of_the_test_part_is_reported_and_rejected_if_strict(
    cohort: Manifest, tmp_path: Path
) -> None:
    parts = ["test", "train", "train", "train", "train", "train"]
    table = cohort.table.assign(
        split=pd.array(parts, dtype="string"), patient_id=cohort.table["image_id"]
    )
    divided = cohort.with_table(table)
    first = cohort.image_paths()[0]
    targets = TARGETS | {"HE": fit(read_image(first), "HE", source=str(first))}
    with pytest.raises(LeakageError, match=r"he-1\.png, .*image 'he/1' of the test part"):
        normalize_manifest(divided, targets, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()
    result = normalize_manifest(divided, targets, tmp_path / "out")
    assert {stain: leak.part for stain, leak in result.target_leaks.items()} == {"HE": "test"}
    recorded = read_manifest(result.path).table["stain_target_leak"].fillna("").tolist()
    assert recorded == ["test"] * 4 + [""] * 2
    again = normalize_manifest(cohort, targets, tmp_path / "out")  # no split: nothing is known
    assert again.target_leaks == {}


def test_an_unreadable_image_becomes_a_row_with_its_reason(
    cohort: Manifest, tmp_path: Path
) -> None:
    cohort.image_paths()[0].write_bytes(b"no image")
    result = normalize_manifest(cohort, TARGETS, tmp_path / "out")
    assert result.n_unreadable == 1
    assert "not an image" in result.manifest.table["stain_reason"][0]
    assert result.manifest.image_paths()[0].resolve() == cohort.image_paths()[0].resolve()


def test_a_second_run_does_nothing_and_a_changed_image_is_done_again(
    cohort: Manifest, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = normalize_manifest(cohort, TARGETS, out, per="image")
    times = {path: path.stat().st_mtime_ns for path in first.manifest.image_paths()}
    write_image(section(9, size=96).image, cohort.image_paths()[0])
    second = normalize_manifest(cohort, TARGETS, out, per="image")
    changed = [path for path in times if path.stat().st_mtime_ns != times[path]]
    assert changed == [first.manifest.image_paths()[0]]
    assert _statuses(second.manifest) == _statuses(first.manifest)


def test_a_missing_result_is_written_again_and_a_truncated_record_is_ignored(
    cohort: Manifest, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = normalize_manifest(cohort, TARGETS, out)
    new = first.manifest.image_paths()
    before = [path.read_bytes() for path in new]
    new[0].unlink()
    records = out / "normalize.jsonl"
    lines = records.read_text(encoding="utf-8").splitlines(keepends=True)
    records.write_text("".join(lines[:-1]) + lines[-1][:20], encoding="utf-8")
    times = {path: path.stat().st_mtime_ns for path in new[1:]}
    normalize_manifest(cohort, TARGETS, out)
    assert [path.read_bytes() for path in new] == before
    assert [path for path in times if path.stat().st_mtime_ns != times[path]] == [new[-1]]


@pytest.mark.parametrize("options", [{"per": "image"}, {"white": (240.0, 240.0, 240.0)}])
def test_a_folder_of_another_run_is_refused(
    cohort: Manifest, tmp_path: Path, options: dict
) -> None:
    out = tmp_path / "out"
    normalize_manifest(cohort, TARGETS, out)
    with pytest.raises(OutputError, match=next(iter(options))) as caught:
        normalize_manifest(cohort, TARGETS, out, **options)
    assert caught.value.where == str(out)
    other = TARGETS | {"PAS": fit(section(102, dyes=PAS).image, "PAS")}
    with pytest.raises(OutputError, match=r"targets\.PAS"):
        normalize_manifest(cohort, other, out)


def test_processes_give_the_same_files(cohort: Manifest, tmp_path: Path) -> None:
    one = normalize_manifest(cohort, TARGETS, tmp_path / "one", per="image")
    two = normalize_manifest(cohort, TARGETS, tmp_path / "two", per="image", n_workers=2)
    assert one.manifest.table.equals(two.manifest.table)
    for first, second in zip(one.manifest.image_paths(), two.manifest.image_paths(), strict=True):
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("per", ["slide", "image"])
@pytest.mark.parametrize("order", [(1,), (2, 1), (3, 1, 2), (7, 6, 5, 4, 3, 2, 1, 2)])
def test_parts_and_a_last_run_give_what_one_run_gives(
    cohort: Manifest, tmp_path: Path, per: str, order: tuple[int, ...]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    normalize_manifest(cohort, TARGETS, one, per=per)
    seen = []
    for number in order:
        part = normalize_manifest(cohort, TARGETS, two, per=per, part=(number, max(order)))
        seen += part.manifest.table["image_id"].tolist()
    assert sorted(set(seen)) == sorted(cohort.table["image_id"])
    assert not (two / "manifest.csv").exists()
    written = {path: path.stat().st_mtime_ns for path in (two / "images").iterdir()}
    normalize_manifest(cohort, TARGETS, two, per=per)
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())
    assert _files(one) == _files(two)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_parts_of_other_settings_are_refused(cohort: Manifest, tmp_path: Path) -> None:
    normalize_manifest(cohort, TARGETS, tmp_path / "out", part=(1, 2))
    with pytest.raises(OutputError, match="per"):
        normalize_manifest(cohort, TARGETS, tmp_path / "out", per="image", part=(2, 2))


def test_a_slide_is_in_one_part(cohort: Manifest, tmp_path: Path) -> None:
    parts = [
        normalize_manifest(cohort, TARGETS, tmp_path / "out", part=(number, 5)).manifest.table
        for number in range(1, 6)
    ]
    slides = [slide for part in parts for slide in part["slide_id"].unique()]
    assert sorted(slides) == ["s1", "s2", "s3"]


def test_a_stain_without_a_target_is_refused_or_kept(cohort: Manifest, tmp_path: Path) -> None:
    only_he = {"HE": TARGETS["HE"]}
    with pytest.raises(ManifestError, match=r"no target for stain PAS \(2 images\)"):
        normalize_manifest(cohort, only_he, tmp_path / "out")
    kept = normalize_manifest(cohort, only_he, tmp_path / "out", keep_others=True)
    assert _statuses(kept.manifest)["pas/1"] == "no_target"
    assert kept.manifest.image_paths()[4].resolve() == cohort.image_paths()[4].resolve()


def test_per_slide_needs_slides(cohort: Manifest, tmp_path: Path) -> None:
    nameless = cohort.with_table(cohort.table.assign(slide_id=pd.NA))
    with pytest.raises(ManifestError, match="--per image"):
        normalize_manifest(nameless, TARGETS, tmp_path / "out")
    result = normalize_manifest(nameless, TARGETS, tmp_path / "out", per="image")
    assert _statuses(result.manifest)["he/2"] in {"one_stain", "not_tissue"}


def test_the_cohort_itself_is_never_written_over(cohort: Manifest) -> None:
    with pytest.raises(OutputError, match="choose another"):
        normalize_manifest(cohort, TARGETS, cohort.folder)


def test_a_target_of_another_stain_is_refused(cohort: Manifest, tmp_path: Path) -> None:
    swapped = {"HE": TARGETS["PAS"], "PAS": TARGETS["HE"]}
    with pytest.raises(ManifestError, match=r"HE .*PAS"):
        normalize_manifest(cohort, swapped, tmp_path / "out")


def test_fitting_per_something_else_is_refused(cohort: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="slide or image"):
        normalize_manifest(cohort, TARGETS, tmp_path / "out", per="patient")


def test_every_image_has_its_outcome(tmp_path: Path) -> None:
    rows = {
        "image_id": list("abcd"),
        "image_path": [f"{name}.jpg" for name in "abcd"],
        "stain": ["HE", "PAS", "HE", "TRI"],
    }
    cohort = manifest_from_rows(
        pd.DataFrame(rows), folder=tmp_path / "in", taxonomy=load_taxonomy("paper")
    )
    out = tmp_path / "out"
    files = {name: out / "images" / f"{name}.png" for name in "abc"}
    records = {
        "a": Record("a", "normalized", "", 1, 1),
        "b": Record("b", "blank", "no tissue", 1, 1),
        "c": Record("c", "unreadable", "no image", 1, 1),
        "gone": Record("gone", "normalized", "", 1, 1),  # of a run with more rows
    }
    leaks = {"HE": TargetLeak("HE", "he.png", "test", "z")}
    new = normalized_manifest(cohort, files, records, out=out, leaks=leaks)
    columns = ["image_path", "stain_status", "stain_reason", "stain_target", "stain_target_leak"]
    table = new.table[[*columns, "normalized_from"]].fillna("")
    assert table.to_numpy().tolist() == [
        ["images/a.png", "normalized", "", "targets/HE.json", "test", "../in/a.jpg"],
        ["images/b.png", "blank", "no tissue", "targets/PAS.json", "", "../in/b.jpg"],
        ["../in/c.jpg", "unreadable", "no image", "", "", ""],
        ["../in/d.jpg", "no_target", "", "", "", ""],
    ]
    assert new.folder == out
    assert "stain_status" not in cohort.table


def test_a_cohort_without_images_has_the_columns_too(tmp_path: Path) -> None:
    rows = pd.DataFrame({"image_id": [], "image_path": []}, dtype="string")
    cohort = manifest_from_rows(rows, folder=tmp_path, taxonomy=load_taxonomy("paper"))
    new = normalized_manifest(cohort, {}, {}, out=tmp_path / "out", leaks={})
    assert "stain_target_leak" in new.table
    assert len(new.table) == 0


def test_images_that_look_like_another_stain_are_counted_and_keep_their_colours(
    cohort: Manifest, tmp_path: Path
) -> None:
    table = cohort.table.copy()
    table.loc[table["slide_id"] == "s3", "stain"] = "HE"
    stated = cohort.with_table(table)
    result = normalize_manifest(stated, {"HE": TARGETS["HE"]}, tmp_path / "out")
    assert _statuses(result.manifest)["pas/1"] == "other_stain"
    assert "PAS" in result.manifest.table["stain_reason"].iloc[4]
    (sentence,) = result.doubts
    assert "2 of 6 images stated as HE" in sentence
    assert "pas/1" in sentence
    old, new = stated.image_paths()[4], result.manifest.image_paths()[4]
    assert np.array_equal(read_image(old), read_image(new))
    with pytest.raises(StainError, match=r"other_stain|blank"):
        normalize_manifest(stated, {"HE": TARGETS["HE"]}, tmp_path / "out", strict=True)


def test_a_target_that_trusts_the_stain_normalises_every_image_of_it(
    cohort: Manifest, tmp_path: Path
) -> None:
    table = cohort.table.assign(stain="HE")
    target = replace(TARGETS["HE"], trusts_stain=True)
    result = normalize_manifest(cohort.with_table(table), {"HE": target}, tmp_path / "out")
    assert _statuses(result.manifest)["pas/1"] == "normalized"
    assert read_reference(tmp_path / "out" / "targets" / "HE.json").trusts_stain


def test_folders_of_versions_without_the_test_are_continued(
    cohort: Manifest, tmp_path: Path
) -> None:
    normalize_manifest(cohort, TARGETS, tmp_path / "out")
    assert "trusts_stain" not in (tmp_path / "out" / "normalize.json").read_text()


def test_a_target_that_the_manifest_lists_under_another_stain_is_refused(
    cohort: Manifest, tmp_path: Path
) -> None:
    listed_as_pas = cohort.image_paths()[4]
    target = replace(TARGETS["HE"], source=str(listed_as_pas))
    with pytest.raises(ManifestError, match=r"target for HE.*lists as PAS"):
        normalize_manifest(cohort, TARGETS | {"HE": target}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_that_were_normalised_before_are_not_done_twice(
    cohort: Manifest, tmp_path: Path
) -> None:
    first = normalize_manifest(cohort, TARGETS, tmp_path / "once")
    (tmp_path / "elsewhere").mkdir()
    write_manifest(first.manifest, tmp_path / "elsewhere" / "copy.csv")
    copy = read_manifest(tmp_path / "elsewhere" / "copy.csv")
    again = normalize_manifest(copy, TARGETS, tmp_path / "twice")
    done = [status in {"normalized", "slide_stains"} for status in _statuses(copy).values()]
    assert again.n_before == sum(done) > 0
    assert "normalised before" in again.doubts[0]
    for is_done, old, new in zip(
        done, copy.image_paths(), again.manifest.image_paths(), strict=True
    ):
        assert (old.resolve() == new.resolve()) is is_done
    assert _statuses(again.manifest) == _statuses(copy)
    third = normalize_manifest(read_manifest(again.path), TARGETS, tmp_path / "thrice")
    assert third.n_before == again.n_before


def test_images_that_were_normalised_to_another_target_are_named(
    cohort: Manifest, tmp_path: Path
) -> None:
    first = normalize_manifest(cohort, TARGETS, tmp_path / "once")
    other = TARGETS | {"PAS": fit(section(77, dyes=PAS).image, "PAS")}
    again = normalize_manifest(first.manifest, other, tmp_path / "twice")
    assert _statuses(again.manifest)["pas/1"] == "other_target"
    assert "another target" in again.doubts[0]
    with pytest.raises(StainError, match=r"other_target|blank"):
        normalize_manifest(first.manifest, other, tmp_path / "twice", strict=True)


def test_a_split_after_normalisation_finds_a_target_in_the_test_part(
    cohort: Manifest, tmp_path: Path
) -> None:
    of_image = fit(read_image(cohort.image_paths()[0]), "HE", source=str(cohort.image_paths()[0]))
    done = normalize_manifest(cohort, TARGETS | {"HE": of_image}, tmp_path / "out", per="image")
    assert not done.target_leaks
    table = done.manifest.table
    for part in ("test", "train"):
        split = table.assign(split=[part, *["train"] * 5], patient_id=[*"abcdef"])
        checked, leaks = recheck_target_leaks(done.manifest.with_table(split))
        noted = checked.table["stain_target_leak"]
        if part == "test":
            assert (leaks["HE"].part, leaks["HE"].image_id) == ("test", "he/1")
            assert (noted[:3] == "test").all()
        else:
            assert not leaks
            assert noted.isna().all()
        assert noted[4:].isna().all()


def test_a_manifest_that_was_never_normalised_is_split_as_it_is(cohort: Manifest) -> None:
    same, leaks = recheck_target_leaks(cohort)
    assert same is cohort
    assert leaks == {}
