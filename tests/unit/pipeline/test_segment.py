"""`segment` writes a folder for each slide, goes on, and names what failed."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from glomerulab.cli.main import app
from glomerulab.errors import CheckpointError, ConfigError, OutputError
from glomerulab.pipeline.segment import segment_slides
from glomerulab.runtime.cluster import open_workers
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.structures.summary import read_summary
from tests.support.segmenters import disc_slide, write_segmenter


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Two glomeruli, one, glass, and a file that is no slide."""
    slides = tmp_path / "slides"
    disc_slide(slides / "a.tif", [(300, 200, 90), (620, 260, 70)], size=(900, 500))
    disc_slide(slides / "b.tif", [(300, 200, 80)], size=(900, 500))
    write_pyramid(np.full((300, 400, 3), 243, np.uint8), slides / "c.tif", mpp=1.0)
    (slides / "d.tif").write_bytes(b"broken")
    lines = ["slide_path,slide_id,patient_id,stain", "slides/a.tif,one 1,pa,PAS"]
    lines += [f"slides/{name}.tif,{name},p{name},PAS" for name in "bcd"]
    (tmp_path / "slides.csv").write_text("\n".join(lines) + "\n")
    write_segmenter(tmp_path / "segmenter")
    return tmp_path


def segment(cohort: Path, out: Path, **how):
    return segment_slides(cohort / "slides.csv", cohort / "segmenter", out, **how)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_each_slide_has_a_folder_and_a_row(cohort, tmp_path) -> None:
    done = segment(cohort, tmp_path / "out")
    assert [one.slide_id for one in done.slides] == ["one 1", "b", "c"]
    assert [one.slide for one in done.failures] == ["d"]
    first, second, third = rows(tmp_path / "out" / "slides.csv")
    assert (first["slide_id"], first["patient_id"], first["stain"]) == ("one 1", "pa", "PAS")
    assert [one["n_glomerulus"] for one in (first, second, third)] == ["2", "1", "0"]
    area = np.pi * (90**2 + 70**2) / 1e6
    assert float(first["glomerulus_mm2"]) == pytest.approx(area, rel=0.01)
    assert float(third["tissue_mm2"]) == 0
    folder = tmp_path / "out" / first["folder"]
    assert {"objects.csv", "structures.geojson", "labels.tif", "summary.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert read_summary(folder / "summary.json").slide_id == "one 1"
    assert len(rows(tmp_path / "out" / "failures.csv")) == 1
    assert not list((tmp_path / "out").rglob(".*partial*"))
    assert not (tmp_path / "out" / "slides" / "d").exists()


def test_glass_is_told_in_the_summary(cohort, tmp_path) -> None:
    done = segment(cohort, tmp_path / "out")
    assert any("no tissue" in note for note in done.slides[2].notes)
    notes = read_summary(tmp_path / "out" / "slides" / "c" / "summary.json").notes
    assert any("no tissue" in note for note in notes)


def test_a_doubtful_scale_is_told_once(cohort, tmp_path) -> None:
    slide = cohort / "slides" / "b.tif"
    model = cohort / "segmenter"
    (done,) = segment_slides(slide, model, tmp_path / "out", formats=(), mpp_override=0.5).slides
    assert sum("0.5" in note for note in done.notes) == 1


def test_a_stain_that_the_segmenter_never_saw_is_told(cohort, tmp_path) -> None:
    toml = cohort / "segmenter" / "segmenter.toml"
    toml.write_text('stains = ["HE"]\n' + toml.read_text())
    done = segment(cohort, tmp_path / "out", formats=())
    assert all(any("PAS" in note for note in one.notes) for one in done.slides)
    toml.write_text(toml.read_text().replace("HE", "PAS"))
    done = segment(cohort, tmp_path / "other", formats=())
    assert not any("PAS" in note for one in done.slides for note in one.notes)


def test_a_run_goes_on_and_does_only_what_is_missing(cohort, tmp_path) -> None:
    first = segment(cohort, tmp_path / "out", formats=("csv",))
    assert all(one.is_new for one in first.slides)
    table = (tmp_path / "out" / "slides.csv").read_bytes()
    again = segment(cohort, tmp_path / "out", formats=("csv",))
    assert not any(one.is_new for one in again.slides)
    assert (tmp_path / "out" / "slides.csv").read_bytes() == table
    shutil.copy(cohort / "slides" / "b.tif", cohort / "slides" / "d.tif")  # mended
    mended = segment(cohort, tmp_path / "out", formats=("csv",))
    assert [one.slide_id for one in mended.slides if one.is_new] == ["d"]
    assert not (tmp_path / "out" / "failures.csv").exists()
    more = segment(cohort, tmp_path / "out", formats=("csv", "geojson"))
    assert all(one.is_new for one in more.slides)


def test_a_slide_whose_file_changed_is_segmented_again(cohort, tmp_path) -> None:
    segment(cohort, tmp_path / "out", formats=("csv",))
    disc_slide(cohort / "slides" / "b.tif", [(300, 200, 80), (600, 200, 80)], size=(900, 500))
    again = segment(cohort, tmp_path / "out", formats=("csv",))
    assert [one.slide_id for one in again.slides if one.is_new] == ["b"]
    assert rows(tmp_path / "out" / "slides.csv")[1]["n_glomerulus"] == "2"


def test_a_folder_of_another_model_or_other_settings_is_refused(cohort, tmp_path) -> None:
    segment(cohort, tmp_path / "out", formats=("csv",))
    with pytest.raises(OutputError, match="stain"):
        segment(cohort, tmp_path / "out", stain="HE")
    write_segmenter(cohort / "other", structures=("tubule", "glomerulus"))
    with pytest.raises(OutputError, match="model"):
        segment_slides(cohort / "slides.csv", cohort / "other", tmp_path / "out", formats=("csv",))
    with pytest.raises(CheckpointError, match="nowhere"):
        segment_slides(cohort / "slides.csv", tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()


SLOW = pytest.mark.slow  # processes that load ONNX Runtime


@pytest.mark.parametrize(
    "kind", ["parts", pytest.param("processes", marks=SLOW), pytest.param("cluster", marks=SLOW)]
)
def test_any_division_gives_what_one_process_gives(cohort, tmp_path, kind) -> None:
    how = {"formats": ("csv", "geojson")}
    segment(cohort, tmp_path / "one", **how)
    if kind == "parts":
        for part in (3, 1, 2):
            segment(cohort, tmp_path / "two", part=(part, 3), **how)
            assert not (tmp_path / "two" / "slides.csv").exists()
        segment(cohort, tmp_path / "two", **how)
    elif kind == "processes":
        segment(cohort, tmp_path / "two", n_workers=2, **how)
    else:
        (tmp_path / "cluster.toml").write_text('kind = "local"\njobs = 2\n')
        with open_workers(None, tmp_path / "cluster.toml") as workers:
            segment(cohort, tmp_path / "two", workers=workers, **how)
    names = [one.relative_to(tmp_path / "one") for one in (tmp_path / "one").rglob("*.*")]
    kept = [name for name in names if not name.name.startswith(".")]
    assert len(kept) == 3 + 3 * 4
    for name in kept:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_a_slide_with_a_damaged_record_is_segmented_again(cohort, tmp_path) -> None:
    segment(cohort, tmp_path / "out", formats=("csv",))
    record = tmp_path / "out" / "slides" / "b" / "slide.json"
    assert json.loads(record.read_text())["failed_tiles"] == []
    for damaged in ("{", "[]", '{"slide_id": "b"}'):
        record.write_text(damaged)
        again = segment(cohort, tmp_path / "out", formats=("csv",))
        assert [one.slide_id for one in again.slides if one.is_new] == ["b"]
    record.with_name("summary.json").unlink()
    again = segment(cohort, tmp_path / "out", formats=("csv",))
    assert [one.slide_id for one in again.slides if one.is_new] == ["b"]


def test_the_command_prints_what_it_did_and_refuses_an_unknown_format(cohort) -> None:
    command = ["segment", str(cohort / "slides.csv"), "--model", str(cohort / "segmenter")]
    command += ["--out", str(cohort / "out"), "--format"]
    done = CliRunner().invoke(app, [*command, "csv"])
    assert done.exit_code == 1
    assert "3 slides segmented" in done.stdout
    assert "1 slide could not be segmented" in done.stderr
    refused = CliRunner().invoke(app, [*command, "svg"])
    assert isinstance(refused.exception, ConfigError)
    assert "svg" in str(refused.exception)


def test_what_the_segmenter_hardly_finds_is_outlined_and_not_counted(cohort, tmp_path) -> None:
    write_segmenter(cohort / "segmenter", more="dice = { cortex = 0.1 }")
    done = segment(cohort, tmp_path / "out", formats=("csv", "geojson"))
    folder = done.slides[0].folder
    summary = read_summary(folder / "summary.json")
    assert set(summary.structures) == {"glomerulus"}
    assert summary.glomeruli_per_mm2 is None
    assert summary.structures["glomerulus"].n_in_cortex is None
    reason = summary.not_assessed["cortex"]
    assert (reason.segmenter, reason.dice) == ("segmenter", 0.1)
    assert any("cortex (Dice 0.10)" in note for note in summary.notes)
    assert any("cortex (Dice 0.10)" in note for note in done.notes)
    assert any("not known" in note and "glomerulus" in note for note in done.notes)
    outlines = json.loads((folder / "structures.geojson").read_text())["features"]
    assert any(one["properties"]["classification"]["name"] == "cortex" for one in outlines)
    assert {row["in_cortex"] for row in rows(folder / "objects.csv")} == {""}
    assert "cortex_mm2" not in rows(tmp_path / "out" / "slides.csv")[0]


def test_a_slide_is_segmented_again_when_the_scores_changed(cohort, tmp_path) -> None:
    slide, model = cohort / "slides" / "b.tif", cohort / "segmenter"
    segment_slides(slide, model, tmp_path / "out", formats=("csv",))
    for more in ("dice = { glomerulus = 0.1 }", "dice = { glomerulus = 0.9 }"):
        write_segmenter(model, more=more)
        (one,) = segment_slides(slide, model, tmp_path / "out", formats=("csv",)).slides
        assert one.is_new
        found = read_summary(one.folder / "summary.json").structures
        assert ("glomerulus" in found) == ("0.9" in more)


def test_a_mistyped_structure_is_told(cohort, tmp_path) -> None:
    write_segmenter(cohort / "segmenter", structures=("cortex", "glomerulis"))
    done = segment(cohort, tmp_path / "out", formats=("csv",))
    assert any("glomerulis" in note and "glomerulus" in note for note in done.notes)
