"""Commands on s3:// URLs, against moto's server."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.manifest import manifest_from_rows, write_manifest
from glomerulab.images import write_image
from glomerulab.pipeline.cohort_merge import merge_cohort
from glomerulab.runtime.storage import release_copies
from glomerulab.taxonomy import Label, Taxonomy
from tests.support.cohorts import ONE_TIME, content, write_slides
from tests.support.command_line import Run

TWO = Taxonomy("two", (Label(id="benign", name="Benign"), Label(id="malignant", name="Malignant")))


def _upload_cohort(s3: Any, folder: Path) -> None:
    """Put a manifest of six patients and its images, in a folder of their own, into the bucket."""
    (folder / "cohort").mkdir(parents=True)
    (folder / "images").mkdir()
    rows = []
    for n in range(12):
        blobs = np.random.default_rng(n).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = np.kron(blobs, np.ones((12, 12, 1), dtype=np.uint8))
        write_image(image, folder / "images" / f"{n}.png")
        rows.append(
            {
                "image_id": f"i{n}",
                "image_path": f"../images/{n}.png",
                "patient_id": f"p{n % 6}",
                "benign": n % 2,
                "malignant": 1 - n % 2,
            }
        )
    manifest = manifest_from_rows(pd.DataFrame(rows), folder=folder / "cohort", taxonomy=TWO)
    write_manifest(manifest, folder / "cohort" / "m.csv")
    s3.put(f"{folder}/", "lab/", recursive=True)


def test_a_cohort_in_the_storage_is_split_and_checked_there(
    s3: Any, run: Run, tmp_path: Path
) -> None:
    _upload_cohort(s3, tmp_path / "before")
    before = set(s3.find("lab"))
    out = "s3://lab/splits/split.parquet"
    done = run("split", "s3://lab/cohort/m.csv", "--out", out, "--ratios", "4:1:1")
    assert done.returncode == 0, done.stderr
    assert f"Uploaded: {out}" in done.stdout
    added = {"lab/splits/split.parquet", "lab/splits/taxonomy.toml"}
    assert set(s3.find("lab")) == before | added
    with s3.open("lab/splits/split.parquet") as file:
        table = pd.read_parquet(file)
    assert set(table["image_path"]) == {f"../images/{n}.png" for n in range(12)}
    assert set(table["split"]) == {"train", "validation", "test"}
    done = run("manifest", "check", out)
    assert done.returncode == 0, done.stdout
    s3.rm("lab/images/3.png")
    done = run("manifest", "check", out)
    assert done.returncode == 1
    assert "3.png" in done.stdout


def test_an_output_folder_appears_when_the_command_has_ended(s3: Any, run: Run) -> None:
    done = run("phantom", "--out", "s3://lab/ph", "--patients", 2, "--per-patient", 1)
    assert done.returncode == 0, done.stderr
    names = s3.find("lab/ph")
    assert "lab/ph/manifest.csv" in names
    assert len([name for name in names if name.startswith("lab/ph/images/")]) == 2
    done = run("manifest", "check", "s3://lab/ph/manifest.csv")
    assert done.returncode == 0, done.stdout


def test_slides_of_a_table_come_to_this_machine_and_their_crops_go_back(
    s3: Any, run: Run, make_slide: Callable[..., Path], tmp_path: Path
) -> None:
    s3.put(str(make_slide("a.tiff")), "lab/slides/a.tiff")
    s3.pipe("lab/slides.csv", b"slide_path,patient_id\nslides/a.tiff,P1\n")
    corners = [[300, 300], [500, 300], [500, 500], [300, 500], [300, 300]]
    region = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {"objectType": "annotation"},
    }
    s3.pipe("lab/regions/a.geojson", json.dumps([region]).encode())
    out = "s3://lab/crops"
    given = ("extract", "s3://lab/slides.csv", "--regions", "s3://lab/regions", "--out", out)
    done = run(*given)
    assert done.returncode == 0, done.stderr
    names = s3.find("lab/crops")
    assert "lab/crops/manifest.csv" in names
    assert [name for name in names if name.endswith(".png")] == [
        "lab/crops/crops/a/a__1.png",
        "lab/crops/masks/a__1.png",
    ]
    again = run(*given)
    assert again.returncode == 0, again.stderr
    assert "1 were there already" in again.stdout
    assert s3.find("lab/crops") == names


def test_a_command_that_fails_uploads_nothing(s3: Any, run: Run, tmp_path: Path) -> None:
    _upload_cohort(s3, tmp_path / "before")
    before = set(s3.find("lab"))
    done = run("split", "s3://lab/cohort/m.csv", "--out", "s3://lab/s.csv", "--folds", 50)
    assert done.returncode == 1
    assert set(s3.find("lab")) == before


def test_commands_that_change_their_folder_take_no_url(s3: Any, run: Run) -> None:
    done = run("report", "s3://lab/case/predictions.csv")
    assert done.returncode == 1
    assert "copy the folder to this machine" in done.stderr


@pytest.fixture
def slides(s3: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slides of six patients, here and in the storage with their regions and a model."""
    for name, value in ONE_TIME.items():
        monkeypatch.setenv(name, value)
    folder = write_slides(tmp_path / "slides", [f"p{n}" for n in range(6)])
    regions = folder / "regions"
    regions.mkdir()
    for path in folder.glob("*.geojson"):
        shutil.move(path, regions)
    s3.put(f"{folder}/", "lab/slides/", recursive=True)
    s3.put(f"{trained}/", "lab/run/", recursive=True)
    return folder


def _predict(
    where: str | Path, model: str | Path, out: str | Path, *further: object
) -> list[object]:
    given = ["predict", f"{where}/slides.csv", "--model", model, "--regions", f"{where}/regions"]
    return [*given, "--margin", 0, "--out", out, *further]


def _downloaded(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").rglob("*.tif")}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["processes", "cluster"])
def test_a_cohort_larger_than_the_cache_is_predicted_by_two_workers(
    how: str, s3: Any, slides: Path, trained: Path, run: Run, tmp_path: Path, monkeypatch
) -> None:
    assert run(*_predict(slides, trained, tmp_path / "here", "--cohort")).returncode == 0
    merge_cohort(tmp_path / "here")
    shared = sum(s3.du(f"lab/{name}") for name in ("run", "slides/regions"))
    largest = max(path.stat().st_size for path in slides.glob("*.tif"))
    monkeypatch.setenv("GLOMERULAB_CACHE_GIB", str((shared + 2.5 * largest + 1000) / 2**30))
    further = ["--cohort", "--workers", "2"]
    if how == "cluster":
        file = tmp_path / "cluster.toml"
        file.write_text('kind = "local"\njobs = 2\nmemory = "2GB"\n')
        further = ["--cluster", str(file)]
    done = run(*_predict("s3://lab/slides", "s3://lab/run", "s3://lab/cohort", *further))
    assert done.returncode == 0, done.stderr
    s3.get("lab/cohort/", str(tmp_path / "there"), recursive=True)
    merge_cohort(tmp_path / "there")
    there, here = (content(tmp_path / name) for name in ("there", "here"))
    assert there == {name: it for name, it in here.items() if not name.endswith(".lock")}
    assert len(_downloaded(tmp_path)) <= 2


def test_a_part_fetches_its_own_slides(s3: Any, slides: Path, run: Run, tmp_path: Path) -> None:
    out = "s3://lab/parts/2"
    done = run(*_predict("s3://lab/slides", "s3://lab/run", out, "--part", "2/3"))
    assert done.returncode == 0, done.stderr
    assert _downloaded(tmp_path) == {"s2.tif", "s3.tif"}
    assert len(s3.glob("lab/parts/2/status/*.done.json")) == 2


def test_a_slide_that_the_storage_lacks_is_a_failed_case(
    s3: Any, slides: Path, run: Run, tmp_path: Path
) -> None:
    s3.rm("lab/slides/s4.tif")
    given = _predict("s3://lab/slides", "s3://lab/run", "s3://lab/cohort", "--cohort")
    assert run(*given).returncode == 1
    (failed,) = s3.glob("lab/cohort/status/*.failed.json")
    assert "s4.tif" in s3.cat(failed).decode()
    # the cohort goes on where another cache is, and what is done is not done again
    s3.put(str(slides / "s4.tif"), "lab/slides/s4.tif")
    s3.rm(failed)
    release_copies()
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setenv("GLOMERULAB_CACHE", str(tmp_path / "other"))
        done = run(*given)
    assert done.returncode == 0, done.stderr
    assert "1 case done, 0 failed, 5 ended before" in done.stdout


@pytest.mark.parametrize("out", ["s3://lab/cohort", "here"])
def test_what_workers_elsewhere_cannot_reach_is_refused(
    out: str, s3: Any, slides: Path, run: Run, tmp_path: Path
) -> None:
    cluster = ("--scheduler", "tcp://127.0.0.1:1")
    if out == "here":
        given = ["extract", "s3://lab/slides/slides.csv", "--regions", "s3://lab/slides/regions"]
        given += ["--out", tmp_path / out]
    else:
        given = _predict("s3://lab/slides", "s3://lab/run", out)
    done = run(*given, *cluster)
    assert done.returncode == 1
    assert "all machines see" in done.stderr
    assert not _downloaded(tmp_path)
