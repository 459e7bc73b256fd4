"""The commands `extract` and `slide` as a user runs them, on real slides and on bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import openslide
import pytest

from glomerulab.cohort.manifest import read_manifest
from glomerulab.geometry import Box, Region
from glomerulab.images import read_image
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.regions.files import write_regions
from glomerulab.slides.slide import open_slide

BROKEN = ("histolab_broken.svs", "openslide_unopenable.tiff", "openslide_unreadable.svs")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "glomerulab", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def grid(n: int, *, size: int = 150, step: int = 90) -> list[Region]:
    return [
        Region.from_box(f"g{i}", Box(70 + step * (i % 8), 70 + step * (i // 8), size, size))
        for i in range(n)
    ]


@pytest.mark.real
def test_info_and_thumbnail_of_a_real_slide(real_data, tmp_path):
    slide = real_data / "slides" / "CMU-1-Small-Region.svs"
    result = run("slide", "info", slide)
    assert result.returncode == 0
    for text in ("2220 x 2967", "0.499", "20x", "aperio", "label, macro, thumbnail"):
        assert text in result.stdout
    facts = json.loads(run("slide", "info", slide, "--json").stdout)
    assert facts["dimensions"] == [2220, 2967]
    assert facts["mpp"] == [0.499, 0.499]
    assert facts["properties"]["aperio.AppMag"] == "20"
    assert run("slide", "thumbnail", slide, tmp_path / "t.png", "--size", 256).returncode == 0
    assert read_image(tmp_path / "t.png").shape == (256, 192, 3)
    again = run("slide", "thumbnail", slide, tmp_path / "t.png")
    assert again.returncode == 1
    assert "--overwrite" in again.stderr


def lanczos_weights(n_in: int, start: float, stop: float, n_out: int) -> np.ndarray:
    """Lanczos-3 by its definition, without Pillow."""
    scale = (stop - start) / n_out
    centres = start + (np.arange(n_out) + 0.5) * scale
    distance = (np.arange(n_in)[None, :] + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def resized(pixels: np.ndarray, weights: np.ndarray, *, axis: int) -> np.ndarray:
    """Apply weights (n_out, n_in) along an axis, rounded and clipped to grey levels."""
    product = np.moveaxis(np.tensordot(weights, pixels, axes=(1, axis)), 0, axis)
    return np.clip(np.rint(product), 0, 255)


@pytest.mark.real
def test_twenty_real_regions_equal_openslides_level_0_resampled_by_hand(real_data, tmp_path, rng):
    slide = real_data / "slides" / "CMU-1-Small-Region.svs"
    regions = [
        Region.from_box(
            f"g{i}",
            Box(  # apart, since regions in one place are counted once
                int(rng.integers(0, 60)) + 420 * (i % 5),
                int(rng.integers(0, 60)) + 600 * (i // 5),
                int(rng.integers(80, 360)),
                int(rng.integers(80, 500)),
            ),
        )
        for i in range(20)
    ]
    write_regions(regions, tmp_path / "r.geojson")
    out = tmp_path / "out"
    done = run(
        "extract",
        slide,
        "--regions",
        tmp_path / "r.geojson",
        "--out",
        out,
        "--mpp",
        1.0,
        "--margin",
        0,
        "--workers",
        2,
    )
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(out / "manifest.csv")
    assert len(manifest.table) == 20
    level_image = openslide.OpenSlide(slide).read_region((0, 0), 0, (2220, 2967))
    level_0: np.ndarray = np.asarray(level_image.convert("RGB")).astype(float)
    for row, path in zip(manifest.table.itertuples(), manifest.image_paths(), strict=True):
        height, width = round(row.height * 0.499), round(row.width * 0.499)
        down = lanczos_weights(2967, row.y, row.y + row.height, height)
        across = lanczos_weights(2220, row.x, row.x + row.width, width)
        crop = read_image(path).astype(float)
        assert crop.shape == (height, width, 3)
        # Pillow takes the cheaper axis first and clips to uint8 in between: either order is right.
        across_first = resized(resized(level_0, across, axis=1), down, axis=0)
        down_first = resized(resized(level_0, down, axis=0), across, axis=1)
        assert min(np.abs(crop - each).max() for each in (across_first, down_first)) <= 1.0


@pytest.mark.real
def test_a_slide_without_mpp_stops_and_names_the_option(real_data, tmp_path):
    slide = real_data / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
    boxes = [Region.from_box(f"g{n}", Box(1500 + 200 * n, 1500, 150, 150)) for n in range(3)]
    write_regions(boxes, tmp_path / "r.csv")
    arguments = ("extract", slide, "--regions", tmp_path / "r.csv", "--out", tmp_path / "out")
    refused = run(*arguments)
    assert refused.returncode == 1
    assert "--mpp-override" in refused.stderr
    done = run(*arguments, "--mpp-override", 0.25)
    assert done.returncode == 0, done.stderr
    assert len(read_manifest(tmp_path / "out" / "manifest.csv").table) == 3
    assert not (tmp_path / "out" / "failures.csv").exists()


@pytest.mark.real
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_slide_ends_in_one_line(real_data, name):
    result = run("slide", "info", real_data / "slides" / name)
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert name in result.stderr


@pytest.mark.real
def test_broken_slides_in_a_batch_become_rows(real_data, tmp_path, make_slide):
    make_slide("good.tiff")
    regions = tmp_path / "regions"
    regions.mkdir()
    broken = [str(real_data / "slides" / name) for name in BROKEN]
    table = ["slide_path", "good.tiff", *broken]
    for name in ("good", *(Path(name).stem for name in BROKEN)):
        write_regions([Region.from_box("g", Box(2, 2, 10, 10))], regions / f"{name}.csv")
    (tmp_path / "slides.csv").write_text("\n".join(table) + "\n")
    out = tmp_path / "out"
    done = run("extract", tmp_path / "slides.csv", "--regions", regions, "--out", out)
    assert done.returncode == 1
    assert read_manifest(out / "manifest.csv").table["slide_id"].tolist() == ["good"]
    failures = (out / "failures.csv").read_text()
    assert len(failures.splitlines()) == 4
    assert all(name in failures for name in BROKEN)


@pytest.mark.real
def test_real_kidney_pixels_go_from_slide_to_glomerulus_crops(real_data, tmp_path):
    folder = real_data / "kidney_compartments" / "glomerulus_capsule"
    patches = sorted(path for path in folder.rglob("*.png") if not path.stem.endswith("_mask"))
    n_across = 5
    n_down = -(-len(patches) // n_across)
    step = 320  # glass between the patches
    canvas = np.full((n_down * step, n_across * step, 3), 243, dtype=np.uint8)
    regions, sources = [], {}
    for number, path in enumerate(patches):
        x, y = (number % n_across) * step + 32, (number // n_across) * step + 32
        pixels = read_image(path)
        canvas[y : y + 256, x : x + 256] = pixels
        rows, columns = np.nonzero(read_image(path.with_name(f"{path.stem}_mask.png"))[..., 0])
        left, upper = int(columns.min()), int(rows.min())
        box = Box(x + left, y + upper, int(columns.max()) + 1 - left, int(rows.max()) + 1 - upper)
        region_id = f"{path.parent.name}-{path.stem}"
        regions.append(Region.from_box(region_id, box))
        sources[region_id] = pixels[upper : upper + box.height, left : left + box.width]
    write_pyramid(canvas, tmp_path / "kidney.tiff", mpp=0.5, compression="deflate")
    write_regions(regions, tmp_path / "kidney.geojson")
    done = run(
        "extract",
        tmp_path / "kidney.tiff",
        "--regions",
        tmp_path / "kidney.geojson",
        "--out",
        tmp_path / "out",
        "--mpp",
        0.5,
        "--margin",
        0,
    )
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "out" / "manifest.csv")
    assert len(manifest.table) == len(patches) >= 20
    for region_id, path in zip(manifest.table["region_id"], manifest.image_paths(), strict=True):
        np.testing.assert_array_equal(read_image(path), sources[region_id])


def test_every_slides_command_states_research_use_only(run, make_slide, tmp_path):
    slide = make_slide()
    for text in (
        ("info", slide),
        ("thumbnail", slide, tmp_path / "t.png"),
        ("deidentify", slide, tmp_path / "d.tiff"),
    ):
        done = run("slide", *text)
        assert done.returncode == 0, done.stderr
        assert done.stdout.rstrip().endswith("Research use only.")


def test_long_lists_are_abbreviated(run, make_slide, tmp_path):
    classes = [f"class {n}" for n in range(22)]
    boxes = [
        Region.from_box(f"g{n}", Box(70 + 45 * n, 70, 40, 40), labels=(name,))
        for n, name in enumerate(classes)
    ]
    write_regions(boxes, tmp_path / "r.geojson")
    done = run(
        "extract", make_slide(), "--regions", tmp_path / "r.geojson", "--out", tmp_path / "o"
    )
    assert "'class 19' (1x) and 2 more\n" in done.stdout


def test_a_path_with_spaces_and_chinese_characters_works(make_slide, tmp_path):
    slide = make_slide("病理 切片/肾 活检 1.tiff")
    write_regions(grid(2), tmp_path / "肾 活检.geojson")
    out = tmp_path / "输出 目录"
    done = run("extract", slide, "--regions", tmp_path / "肾 活检.geojson", "--out", out)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(out / "manifest.csv")
    assert all(path.is_file() for path in manifest.image_paths())
    assert manifest.table["slide_id"].tolist() == ["肾 活检 1"] * 2


def test_a_read_only_output_is_one_line(make_slide, tmp_path, tmpfs):
    write_regions(grid(2), tmp_path / "r.csv")
    slide = make_slide()
    subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True)
    done = run("extract", slide, "--regions", tmp_path / "r.csv", "--out", tmpfs / "out")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Read-only file system" in done.stderr


def test_an_output_below_a_file_is_one_line(make_slide, tmp_path):
    write_regions(grid(2), tmp_path / "r.csv")
    (tmp_path / "file").write_text("taken")
    done = run(
        "extract", make_slide(), "--regions", tmp_path / "r.csv", "--out", tmp_path / "file" / "o"
    )
    assert done.returncode == 1
    assert "the folder cannot be made" in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_stops_the_run_and_leaves_only_whole_crops(
    make_slide, tmp_path, tmpfs, workers
):
    write_regions(grid(48), tmp_path / "r.csv")
    arguments = ("extract", make_slide(), "--regions", tmp_path / "r.csv", "--out", tmpfs / "out")
    done = run(*arguments, "--workers", workers)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    crops = list((tmpfs / "out" / "crops").rglob("*.png"))
    assert 0 < len(crops) < 48
    for path in crops:
        read_image(path)
    subprocess.run(["mount", "-o", "remount,size=40m", tmpfs], check=True)
    again = run(*arguments)
    assert again.returncode == 0, again.stderr
    assert f"{len(crops)} were there already" in again.stdout
    assert len(read_manifest(tmpfs / "out" / "manifest.csv").table) == 48


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_is_continued_with_nothing_lost_or_doubled(make_slide, tmp_path, workers):
    slide = make_slide(size=(1900, 1900))
    regions = tmp_path / "r.csv"
    write_regions(grid(60, size=300, step=210), regions)
    out = tmp_path / "out"
    arguments = [
        "extract",
        slide,
        "--regions",
        regions,
        "--mpp",
        0.25,
        "--workers",
        workers,
        "--out",
    ]
    command = [sys.executable, "-m", "glomerulab", *map(str, arguments), str(out)]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    crops = out / "crops" / "slide"
    while len(list(crops.glob("[!.]*.png"))) < 5:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    time.sleep(1.0)  # its workers notice and end
    masks = {path.name for path in (out / "masks").glob("[!.]*.png")}
    done_before = {  # a crop is done when its mask is there
        path: path.stat().st_mtime_ns for path in crops.glob("[!.]*.png") if path.name in masks
    }
    assert 3 <= len(done_before) < 60
    again = run(*arguments, out)
    assert again.returncode == 0, again.stderr
    assert f"{60 - len(done_before)} crops cut, {len(done_before)} were there" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in done_before} == done_before
    fresh = run(*arguments, tmp_path / "fresh")
    assert fresh.returncode == 0
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    expected = sorted(
        path.relative_to(tmp_path / "fresh")
        for path in (tmp_path / "fresh").rglob("*")
        if path.is_file()
    )
    assert files == expected
    for file in files:
        assert (out / file).read_bytes() == (tmp_path / "fresh" / file).read_bytes()


def test_the_workers_of_a_killed_run_end_too(make_slide, tmp_path):
    regions = tmp_path / "r.csv"
    write_regions(grid(80, size=600, step=60), regions)
    command = [
        sys.executable,
        "-m",
        "glomerulab",
        "extract",
        str(make_slide(size=(1600, 1300))),
        "--regions",
        str(regions),
        "--out",
        str(tmp_path / "out"),
        "--mpp",
        "0.25",
        "--workers",
        "2",
    ]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list((tmp_path / "out").rglob("*.png"))) < 5:
        assert killed.poll() is None
        time.sleep(0.01)
    children = _children(killed.pid)
    assert len(children) >= 2
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    deadline = time.monotonic() + 20
    while any(_is_alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_is_alive(pid) for pid in children)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_slide_of_another_writer_keeps_its_mpp(make_slide):
    with open_slide(make_slide(mpp=0.2273)) as slide:
        assert slide.mpp == pytest.approx(0.2273, rel=1e-6)
