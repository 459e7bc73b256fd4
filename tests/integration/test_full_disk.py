"""A disk that is too small for the map of one slide: that slide fails, and the others are done."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from glomerulab.errors import GlomerulabError
from glomerulab.pipeline.cohort_merge import merge_cohort
from glomerulab.slides.slide import open_slide
from glomerulab.structures.dicom import write_segmentations
from tests.support.dask_processes import COMMAND, ENVIRONMENT
from tests.support.segmenters import disc_slide, write_segmenter
from tests.support.structure_maps import draw_disc, make_map

pytestmark = pytest.mark.xdist_group("cluster")

STEPS = {
    "segment": ("segment", "slides.csv", "--model", "segmenter"),
    "extract": ("extract", "slides.csv", "--detect", "segmenter"),
    "predict": ("predict", "slides.csv", "--model", "run", "--detect", "segmenter"),
    "cohort": ("predict", "slides.csv", "--model", "run", "--detect", "segmenter", "--cohort"),
}
SLOW = pytest.mark.slow  # processes of their own
ENGINES = {
    "processes": ("--workers", "2"),
    "cluster": ("--cluster", "cluster.toml"),
}
TABLES = {"segment": "slides.csv", "extract": "manifest.csv", "predict": "predictions.csv"}


@pytest.fixture(scope="module")
def home(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    for name, size in (("a", (900, 500)), ("big", (2600, 1800)), ("c", (800, 500))):
        disc_slide(home / "slides" / f"{name}.tif", [(300, 200, 90)], size=size)
    rows = [f"slides/{name}.tif,{name},p{name},PAS" for name in ("a", "big", "c")]
    header = "slide_path,slide_id,patient_id,stain"
    (home / "slides.csv").write_text("\n".join([header, *rows]))
    write_segmenter(home / "segmenter")
    shutil.copytree(trained, home / "run")
    (home / "cluster.toml").write_text('kind = "local"\njobs = 2\nmemory = "2GB"\n')
    return home


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount(place, "size=8m")
    yield place
    subprocess.run(["umount", place], check=True)


def mount(place: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")


def glomerulab(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, cwd=home, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def slide_ids(name: str, out: Path) -> list[str]:
    if name == "cohort":
        return sorted(path.name.split(".")[0] for path in (out / "status").glob("*.done.json"))
    table = pd.read_csv(out / TABLES[name], dtype=str)
    return sorted(set(table["slide_id"]))


@pytest.mark.parametrize(
    "name",
    ["segment", "cohort", *(pytest.param(name, marks=SLOW) for name in ("extract", "predict"))],
)
def test_a_slide_without_room_for_its_map_fails_and_the_others_are_done(
    name, home, small_disk
) -> None:
    out = small_disk / "out"
    done = glomerulab(home, *STEPS[name], "--out", out)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert slide_ids(name, out) == (["pa", "pc"] if name == "cohort" else ["a", "c"])
    if name == "cohort":
        merge_cohort(out)
    (failure,) = pd.read_csv(out / "failures.csv").itertuples(index=False)
    assert failure[0] == ("pbig" if name == "cohort" else "big")
    assert "make room" in failure.reason
    assert list(out.rglob("*.partial-*")) == []


def test_a_mask_that_is_read_through_its_mapping_has_room_for_its_glass(home, small_disk) -> None:
    mount(small_disk, "remount,size=512k")
    shape = (1800, 2600)
    drawn = make_map({"tubule": draw_disc(shape, (100, 100), 20)}, mpp=1.0)
    with (
        open_slide(home / "slides" / "big.tif") as slide,
        pytest.raises(GlomerulabError, match="make room"),
    ):
        write_segmentations(drawn, slide, small_disk / "out")
    assert not list(small_disk.rglob("*.npy"))


@SLOW
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["segment", "extract", "cohort"])
def test_with_room_the_next_call_gives_what_an_undisturbed_one_gives(
    name, engine, home, small_disk, tmp_path
) -> None:
    out, how = small_disk / "out", ENGINES[engine]
    done = glomerulab(home, *STEPS[name], "--out", out, *how)
    # The big slide may fill the disk while another is written.
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "killed" not in done.stderr
    mount(small_disk, "remount,size=200m")
    if name == "cohort":
        assert glomerulab(home, "cohort", "retry", out).returncode == 0
    again = glomerulab(home, *STEPS[name], "--out", out, *how)
    assert again.returncode == 0, again.stderr
    assert glomerulab(home, *STEPS[name], "--out", tmp_path / "whole").returncode == 0
    there, whole = results(out), results(tmp_path / "whole")
    assert there.keys() == whole.keys()
    assert [key for key in whole if there[key] != whole[key]] == []


def results(out: Path) -> dict[str, bytes]:
    """Return the results: no records of times, and no attempts."""
    files = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    return {
        str(name): path.read_bytes()
        for name, path in files.items()
        if name.suffix in {".csv", ".geojson", ".png", ".tif", ".tiff"}
        and name.parts[0] != "status"
    }
