"""Fixtures of all tests: real data, a seeded generator, small slides."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from PIL import Image

from glomerulab.slides.pyramid import write_pyramid

ROOT = Path(__file__).resolve().parents[1]
# How long an example takes depends on the machine; first calls compile.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
REAL_DATA = Path(os.environ.get("GLOMERULAB_REAL_DATA", ROOT.parent / "shared" / "data"))


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("browser"):  # one process serves the pages of a module
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    if REAL_DATA.is_dir():
        return
    skip = pytest.mark.skip(reason=f"no real data at {REAL_DATA}; set GLOMERULAB_REAL_DATA")
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real slides and images; tests that use it carry the marker ``real``."""
    return REAL_DATA


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20220910)


def smooth_noise(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Coloured texture without sharp edges, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 240, (max(height // 16, 2), max(width // 16, 2), 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def make_slide(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a lossless pyramidal slide with a glass border."""

    def make(
        name: str = "slide.tiff",
        *,
        size: tuple[int, int] = (1200, 900),
        mpp: float = 0.5,
        seed: int = 0,
    ) -> Path:
        width, height = size
        pixels = np.full((height, width, 3), (244, 242, 240), dtype=np.uint8)
        pixels[64:-64, 64:-64] = smooth_noise(height - 128, width - 128, seed=seed)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pyramid(pixels, path, mpp=mpp, compression="deflate")
        return path

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small network, with its gates; not to be changed."""
    from glomerulab.inference.fit_calibration import fit_calibration
    from tests.support.model_runs import train_small_run

    run = train_small_run(tmp_path_factory.mktemp("trained"))
    fit_calibration(run)
    return run


@pytest.fixture
def own_run(trained: Path, tmp_path: Path) -> Path:
    """A copy with its images, to be damaged."""
    shutil.copytree(trained.parent, tmp_path / "copy")
    return tmp_path / "copy" / "run"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of moto's server, which runs in this process."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket ``lab`` as fsspec gives it, and an empty cache."""
    import fsspec

    from glomerulab.runtime import storage

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("GLOMERULAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(storage, "_lease", None)
    system = fsspec.filesystem("s3", use_listings_cache=False)
    system.mkdir("lab")
    yield system
    system.rm("lab", recursive=True)
    if storage._lease is not None:
        storage._lease.close()
