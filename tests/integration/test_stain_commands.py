from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from glomerulab.cli.main import app
from glomerulab.errors import GlomerulabError, LeakageError, StainError
from glomerulab.images import read_image, write_image
from glomerulab.stain.fitting import fit
from glomerulab.stain.reference import aggregate, read_reference, write_reference
from tests.support.beer_lambert import PAS, TARGET_HE, section


def _run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    folder = tmp_path / "cohort"
    folder.mkdir()
    rows = []
    for k in range(10):
        stain = "PAS" if k % 2 else "HE"
        dyes = {"dyes": PAS} if stain == "PAS" else {}
        write_image(section(k, size=96, **dyes).image, folder / f"{k}.png")
        rows.append((f"i{k}", f"{k}.png", f"p{k // 4}", f"s{k % 4}", stain, 1))
    columns = ["image_id", "image_path", "patient_id", "slide_id", "stain", "synthetic"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "manifest.csv", index=False)
    write_image(section(100, dyes=TARGET_HE, size=128).image, tmp_path / "he.png")
    write_reference(fit(section(101, dyes=PAS, size=128).image, "PAS"), tmp_path / "pas.json")
    return folder / "manifest.csv"


def _normalize(cohort: Path, *more: object):
    root = cohort.parent.parent
    return _run(
        "normalize",
        cohort,
        "--target-he",
        root / "he.png",
        "--target-pas",
        root / "pas.json",
        "--out",
        root / "out",
        *more,
    )


@pytest.mark.parametrize("per", ["slide", "image"])
def test_normalize_then_check(cohort: Path, per: str) -> None:
    root = cohort.parent.parent
    done = _normalize(cohort, "--per", per)
    assert done.exit_code == 0, done.output
    assert "normalized: 10" in done.output
    assert "research use only" in done.output
    done = _run("stain-check", cohort, root / "out" / "manifest.csv", "--out", root / "check")
    assert done.exit_code == 0, done.output
    assert "Balanced accuracy of predicting slide_id" in done.output
    page = (root / "check" / "stain_check.html").read_text(encoding="utf-8")
    assert "SYNTHETIC DATA" in page
    assert (root / "check" / "stain_check.csv").is_file()


def test_another_target_in_the_same_folder_is_refused(cohort: Path) -> None:
    assert _normalize(cohort).exit_code == 0
    done = _normalize(cohort, "--preset", "paper", "--per", "slide")
    assert isinstance(done.exception, GlomerulabError)
    assert "--preset" in str(done.exception)  # the JSON target was fitted with the other preset


def test_targets_of_further_stains_are_named(cohort: Path) -> None:
    root = cohort.parent.parent
    done = _run(
        "normalize",
        cohort,
        "--target",
        f"HE={root / 'he.png'}",
        "--target",
        f"PAS={root / 'pas.json'}",
        "--out",
        root / "out",
    )
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("target", "expected"),
    [("HE", "must be STAIN=FILE"), ("=x.png", "must be STAIN=FILE")],
)
def test_a_malformed_target_is_wrong_usage(cohort: Path, target: str, expected: str) -> None:
    done = _run("normalize", cohort, "--target", target, "--out", cohort.parent.parent / "out")
    assert done.exit_code == 2
    assert expected in done.output


def test_no_target_is_wrong_usage(cohort: Path) -> None:
    assert _run("normalize", cohort, "--out", cohort.parent.parent / "out").exit_code == 2


def test_several_targets_of_one_stain_are_averaged(cohort: Path) -> None:
    root = cohort.parent.parent
    more = [section(seed, dyes=TARGET_HE, size=128).image for seed in (102, 103)]
    for k, image in enumerate(more):
        write_image(image, root / f"more{k}.png")
    done = _normalize(
        cohort, "--target-he", root / "more0.png", "--target", f"HE={root / 'more1.png'}"
    )
    assert done.exit_code == 0, done.output
    merged = read_reference(root / "out" / "targets" / "HE.json")
    singles = [fit(read_image(root / "he.png"), "HE"), *(fit(image, "HE") for image in more)]
    assert merged.n_sources == 3
    assert merged.source.count(".png") == 3
    assert np.allclose(merged.stain_vectors, aggregate(singles).stain_vectors)


@pytest.mark.parametrize("white", ["240", "240,240", "a,b,c", "240,240,0", "240,240,256"])
def test_a_malformed_white_is_wrong_usage(cohort: Path, white: str) -> None:
    assert _normalize(cohort, "--white", white).exit_code == 2


def test_a_given_white_is_kept_with_the_slides(cohort: Path) -> None:
    done = _normalize(cohort, "--white", "241,238,242")
    assert done.exit_code == 0, done.output
    slides = sorted((cohort.parent.parent / "out" / "slides").iterdir())
    assert {read_reference(slide).white for slide in slides} == {(241.0, 238.0, 242.0)}


def test_a_target_from_the_test_part_is_reported_at_the_end(cohort: Path) -> None:
    root = cohort.parent.parent
    table = pd.read_csv(cohort)
    table["split"] = ["train" if patient == "p0" else "test" for patient in table["patient_id"]]
    table.to_csv(cohort, index=False)
    (root / "he.png").write_bytes((cohort.parent / "8.png").read_bytes())
    done = _normalize(cohort)
    assert done.exit_code == 0, done.output
    assert "warning: the target for HE" in done.stderr
    assert "comes from image 'i8' of the test part" in done.stderr
    strict = _normalize(cohort, "--strict")
    assert isinstance(strict.exception, LeakageError)


def test_the_images_of_a_mean_are_checked_when_its_reference_is_used_again(cohort: Path) -> None:
    root = cohort.parent.parent
    table = pd.read_csv(cohort).assign(split="train")
    table.to_csv(cohort, index=False)
    assert _normalize(cohort, "--target-he", cohort.parent / "0.png").exit_code == 0
    table.loc[0, ["split", "patient_id"]] = ["test", "alone"]
    table.to_csv(cohort, index=False)
    done = _run(
        "normalize",
        cohort,
        "--target-he",
        root / "out" / "targets" / "HE.json",
        "--target-pas",
        root / "pas.json",
        "--out",
        root / "again",
        "--strict",
    )
    assert isinstance(done.exception, LeakageError)
    assert "comes from image 'i0' of the test part" in str(done.exception)


def test_an_unreadable_image_ends_with_exit_code_1_and_a_row(cohort: Path) -> None:
    (cohort.parent / "3.png").write_bytes(b"no image")
    done = _normalize(cohort)
    assert done.exit_code == 1
    assert "unreadable: 1" in done.output
    root = cohort.parent.parent
    done = _run("stain-check", cohort, root / "out" / "manifest.csv", "--out", root / "check")
    assert done.exit_code == 1
    assert "1 images could not be compared" in done.output


def test_strict_names_the_first_image(cohort: Path) -> None:
    write_image(section(1, size=96, strength=(0.0, 0.0)).image, cohort.parent / "0.png")
    done = _normalize(cohort, "--strict", "--per", "image")
    assert isinstance(done.exception, StainError)
    assert "i0: blank" in str(done.exception)


def test_a_target_without_two_stains_is_an_error(cohort: Path) -> None:
    root = cohort.parent.parent
    write_image(section(1, size=96, strength=(0.0, 0.0)).image, root / "he.png")
    done = _normalize(cohort)
    assert isinstance(done.exception, StainError)
    assert "he.png: blank" in str(done.exception)


def test_the_refusal_of_a_target_names_the_way_out(cohort: Path) -> None:
    target = cohort.parent.parent / "pas.png"
    write_image(section(101, dyes=PAS, size=128).image, target)
    out = cohort.parent.parent / "out"
    done = _run("normalize", cohort, "--target-he", target, "--keep-others", "--out", out)
    assert isinstance(done.exception, StainError)
    assert "PAS" in str(done.exception)
    assert "--trust-stains" in str(done.exception)
