"""Images and disks of every bad kind, through the commands that meet them."""

import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pyvips
from PIL import Image

from glomerulab.cohort.manifest import manifest_from_rows, read_manifest, write_manifest
from glomerulab.geometry import Box, Region
from glomerulab.images import RgbImage, read_image, write_image
from glomerulab.slides.regions.files import write_regions
from glomerulab.taxonomy import load_taxonomy
from tests.support.command_line import Run

SIDE = 96
BAD = {
    "cut short png": "image file is truncated",
    "cut short jpeg": "image file is truncated",
    "empty": "file is empty (0 bytes)",
    "text": "an image",
    "bomb": "more than the 100,000,000 pixels allowed",
}
"""Name of each unusable image, and a part of the expected message."""


def picture(seed: int) -> RgbImage:
    """Blocks of colour that no other seed gives."""
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((SIDE // 12, SIDE // 12, 1), dtype=np.uint8))


def write_good(folder: Path) -> dict[str, RgbImage]:
    """Write a picture of every unusual kind; give what each must be read as."""
    sixteen = pyvips.Image.new_from_array(picture(0).astype(np.uint16) * 257)
    sixteen.copy(interpretation="rgb16").write_to_file(str(folder / "16 bit.png"))
    tiled = pyvips.Image.new_from_array(picture(1).astype(np.uint16) * 257)
    tiled.copy(interpretation="rgb16").write_to_file(str(folder / "16 bit tiled.tif"), tile=True)
    grey = picture(2)[..., 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "16 bit grey.png")
    Image.fromarray(picture(3)[..., 0]).save(folder / "grey.png")
    Image.fromarray(picture(4)).quantize(256).save(folder / "palette.png")
    clear = np.dstack([picture(5), np.where(picture(6)[..., :1] > 127, 255, 0)]).astype(np.uint8)
    Image.fromarray(clear, "RGBA").save(folder / "clear.png")
    Image.fromarray(picture(7)).convert("CMYK").save(folder / "cmyk.tif")
    write_image(picture(8), folder / "肾 图.png")
    return {
        "16 bit": picture(0),
        "16 bit tiled": picture(1),
        "16 bit grey": np.stack([grey] * 3, axis=-1),
        "grey": np.stack([picture(3)[..., 0]] * 3, axis=-1),
        "palette": picture(4),
        "clear": np.where(clear[..., 3:] == 255, clear[..., :3], 255).astype(np.uint8),
        "cmyk": picture(7),
        "肾 图": picture(8),
    }


def write_bad(folder: Path) -> None:
    """Write the images of `BAD`."""
    for name, suffix in (("cut short png", ".png"), ("cut short jpeg", ".jpg")):
        path = folder / f"{name}{suffix}"
        noise = np.random.default_rng(9).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        write_image(noise, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("hello")
    (folder / "bomb.png").write_bytes(bomb(50_000))


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, dict[str, RgbImage]]:
    folder = tmp_path / "病理 图像" / "cgn"
    folder.mkdir(parents=True)
    good = write_good(folder)
    write_bad(folder)
    return folder, good


def test_check_names_every_image_that_cannot_be_used_and_no_other(
    run: Run, images: tuple[Path, dict[str, RgbImage]], tmp_path: Path
) -> None:
    folder, good = images
    manifest = tmp_path / "m.csv"
    assert run("manifest", "import", folder.parent, "--out", manifest).returncode == 0
    done = run("manifest", "check", manifest)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert len(lines) == len(BAD)
    for name, reason in BAD.items():
        (line,) = [line for line in lines if f"'cgn/{name}'" in line]
        assert reason in line
    assert len(read_manifest(manifest).table) == len(BAD) + len(good)


def test_a_contact_sheet_shows_the_good_and_lists_the_bad(
    run: Run, images: tuple[Path, dict[str, RgbImage]], tmp_path: Path
) -> None:
    folder, good = images
    manifest = tmp_path / "m.csv"
    run("manifest", "import", folder.parent, "--out", manifest)
    n_images = len(BAD) + len(good)
    done = run(
        "manifest", "contact-sheet", manifest, "--out", tmp_path / "s.png", "--per-group", n_images
    )
    assert done.returncode == 1
    assert all(name in done.stdout for name in BAD)
    assert f"{len(BAD)} images" in done.stderr
    assert read_image(tmp_path / "s.png").size > 0


@pytest.mark.parametrize("workers", [1, 2])
def test_in_a_batch_of_extract_bad_images_become_rows_and_good_ones_are_cut_exactly(
    run: Run, images: tuple[Path, dict[str, RgbImage]], tmp_path: Path, workers: int
) -> None:
    folder, good = images
    regions = [Region.from_box("g", Box(8, 16, 64, 48), slide_id=name) for name in (*good, *BAD)]
    write_regions(regions, tmp_path / "r.csv")
    out = tmp_path / "裁 剪"
    done = run(
        "extract",
        folder,
        "--regions",
        tmp_path / "r.csv",
        "--out",
        out,
        "--mpp",
        0.5,
        "--mpp-override",
        0.5,
        "--margin",
        0,
        "--workers",
        workers,
    )
    assert done.returncode == 1
    failures = pd.read_csv(out / "failures.csv").set_index("slide")["reason"].to_dict()
    assert failures.keys() == BAD.keys()
    for name, reason in BAD.items():
        assert reason in failures[name]
        assert f"{name}." in failures[name]
    manifest = read_manifest(out / "manifest.csv")
    assert sorted(manifest.table["slide_id"]) == sorted(good)
    for slide_id, path in zip(manifest.table["slide_id"], manifest.image_paths(), strict=True):
        expected = good[slide_id][16:64, 8:72].astype(int)
        assert np.abs(read_image(path) - expected).max() <= (2 if slide_id == "cmyk" else 0)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A cohort of six noisy pictures, each too large for half of a small disk."""
    rows = []
    for n in range(6):
        noise = np.random.default_rng(n).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        write_image(noise, tmp_path / f"{n}.png")
        rows.append(
            {
                "image_id": f"{n}",
                "image_path": f"{n}.png",
                "patient_id": f"p{n}",
                "cgn": n % 2,
                "split": "train",
            }
        )
    table = manifest_from_rows(pd.DataFrame(rows), folder=tmp_path, taxonomy=load_taxonomy("paper"))
    write_manifest(table, tmp_path / "manifest.csv")
    return tmp_path / "manifest.csv"


WRITERS = {
    "thumbnail": "slide thumbnail SLIDE OUT/t.png",
    "deidentify": "slide deidentify SLIDE OUT/d.tiff",
    "phantom crops": "phantom --out OUT/p --patients 1 --per-patient 2 --stains PAS",
    "phantom slides": "phantom --slides --out OUT/p --patients 1 --per-patient 1 --mpp 1",
    "contact sheet": "manifest contact-sheet MANIFEST --out OUT/s.png --cell 256",
    "augment": "augment MANIFEST --out OUT/a --to 12",
}
"""A command line per way of writing; each writes more than a small disk holds."""


REFUSALS = {"full": "No space left on device", "read-only": "Read-only file system"}


def split_command(line: str, **places: Path) -> list[str]:
    """Split a command line and put the places in."""
    parts = line.split()
    for name, place in places.items():
        parts = [part.replace(name, str(place)) for part in parts]
    return parts


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("disk", REFUSALS)
def test_a_failing_disk_is_reported_in_one_line_and_leaves_only_complete_files(
    run: Run, tmpfs: Path, make_slide: Callable[..., Path], manifest: Path, writer: str, disk: str
) -> None:
    slide = make_slide(size=(1600, 1300))
    if disk == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True)
    done = run(*split_command(WRITERS[writer], SLIDE=slide, MANIFEST=manifest, OUT=tmpfs))
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("glomerulab: ")]
    assert len(errors) == 1
    assert errors[0].endswith(
        "No space left on device" if disk == "full" else "Read-only file system"
    )
    assert str(tmpfs) in errors[0]
    assert not list(tmpfs.rglob("*.partial-*"))
    for path in tmpfs.rglob("*.png"):
        read_image(path)


TOO_LONG = (
    "report NAME",
    "extract NAME --regions NAME --out OUT --mpp 1",
    "slide info NAME",
    "evaluate NAME",
    "manifest check NAME.csv",
    "annotate serve --db OUT/a.db --manifest NAME",
)


@pytest.mark.parametrize("line", TOO_LONG)
@pytest.mark.parametrize("letter", ["a", "\u817e"])
def test_a_name_that_no_disk_takes_ends_in_one_line(
    run: Run, tmp_path: Path, line: str, letter: str
) -> None:
    done = run(*split_command(line, NAME=tmp_path / (letter * 300), OUT=tmp_path))
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert error.startswith("glomerulab: ")


def test_a_slide_whose_name_no_disk_takes_does_not_stop_the_others(
    run: Run, tmp_path: Path, make_slide: Callable[..., Path]
) -> None:
    slide = make_slide("good.tif", size=(700, 600))
    write_regions([Region.from_box("g1", Box(100, 100, 200, 200))], tmp_path / "good.geojson")
    table = tmp_path / "slides.csv"
    rows = [f"{slide},good,p1,PAS", f"{'x' * 300}.tif,bad,p2,PAS"]
    table.write_text("\n".join(["slide_path,slide_id,patient_id,stain", *rows]) + "\n")
    out = tmp_path / "out"
    done = run(*f"extract {table} --regions {tmp_path} --out {out} --mpp 1".split())
    assert done.returncode == 1
    assert len(read_manifest(out / "manifest.csv").table) == 1
    assert "bad" in (out / "failures.csv").read_text()
