"""Stain normalisation: speed against its peers, and the optimum.

Run: ``python benchmarks/stain.py`` in an environment that has this package; peers are measured if
installed and named otherwise. To install them beside this package, and only for this: ``pip install
--no-deps torchstain staintools spams-bin`` and ``pip install opencv-python-headless``. Names of
parts run only these: ``speed cohort cold optimum``. Accuracy against known truth:
``stain_truth.py``. Reads the real images under GLOMERULAB_REAL_DATA (default ``../shared/data``).
One thread unless stated otherwise, best of several runs. Prints Markdown tables.
"""

import importlib
import io
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from PIL import Image  # noqa: E402

from glomerulab.errors import StainError  # noqa: E402
from glomerulab.images import RgbImage, read_image  # noqa: E402
from glomerulab.stain.fitting import fit  # noqa: E402
from glomerulab.stain.normalize import normalize, transform  # noqa: E402
from glomerulab.stain.optical_density import (  # noqa: E402
    estimate_white,
    find_tissue,
)
from glomerulab.stain.reference import PAPER, RECOMMENDED  # noqa: E402
from glomerulab.stain.separation import objective, solve, solve_tissue  # noqa: E402

REAL_DATA = Path(
    os.environ.get("GLOMERULAB_REAL_DATA", Path(__file__).parents[2] / "shared" / "data")
)
SIDES_PX = (224, 512, 2000)
COLD = (
    "import time; from pathlib import Path; import sys; t = time.perf_counter();"
    "from glomerulab.images import read_image; from glomerulab.stain.fitting import fit;"
    "from glomerulab.stain.normalize import transform; loaded = time.perf_counter();"
    "image = read_image(Path(sys.argv[1]))[:224, :224]; start = time.perf_counter();"
    "own = fit(image, 'HE'); transform(image, own, own); end = time.perf_counter();"
    "print(loaded - t, end - start)"
)


def best_ms(call: Callable[[], object], *, seconds: float = 3.0, most: int = 200) -> float:
    call()
    times, begin = [], time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - begin < seconds and len(times) < most):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def peer(name: str) -> object | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except (ImportError, TypeError):  # TypeError: a peer whose own dependencies do not fit
        print(f"\n(peer {name} is not installed: left out)")
        return None


def fields() -> tuple[RgbImage, RgbImage]:
    """A real HE field of 2000 px, made of four copies of one of 1024 px, and a target."""
    field = read_image(REAL_DATA / "stain" / "histolens_example2.tif")
    target = read_image(REAL_DATA / "stain" / "tiatoolbox_HE_target.png")
    return np.tile(field, (2, 2, 1))[: SIDES_PX[-1], : SIDES_PX[-1]], target


def time_one_image() -> None:
    field, target_image = fields()
    target = fit(target_image, "HE")
    peers: dict[str, Callable[[RgbImage], object]] = {}
    if (torchstain := peer("torchstain")) is not None:
        macenko = torchstain.normalizers.MacenkoNormalizer(backend="numpy")
        macenko.fit(target_image)
        peers["Macenko, torchstain"] = lambda image: macenko.normalize(I=image, stains=False)
    if peer("spams") is not None and (staintools := peer("staintools")) is not None:
        theirs = staintools.StainNormalizer(method="vahadane")
        theirs.fit(target_image)
        peers["Vahadane, StainTools (spams)"] = theirs.transform
        peers["Vahadane, spams, 200 iterations"] = spams_vahadane(target_image)
    if (macenko_of := tiatoolbox_macenko(target_image)) is not None:
        peers["Macenko, tiatoolbox"] = macenko_of
    crops = [np.ascontiguousarray(field[:side, :side]) for side in SIDES_PX]
    own = fit(crops[1], "HE")
    rows = {
        "fit and transform": [
            best_ms(lambda c=c: normalize(c, target, strict=True)) for c in crops
        ],
        "transform, stains of the slide known": [
            best_ms(lambda c=c: transform(c, own, target)) for c in crops
        ],
    }
    for name, call in peers.items():
        rows[name] = [best_ms(lambda c=c, f=call: f(c), seconds=4.0, most=20) for c in crops]
    print("\n| one image, one thread, ms | " + " | ".join(f"{s}²" for s in SIDES_PX) + " |")
    print("|---" * (len(SIDES_PX) + 1) + "|")
    for name, values in rows.items():
        ratios = [f"{v:.2f}" for v in values]
        if name in peers:
            ours = rows["fit and transform"]
            ratios = [f"{v:.1f} ({v / o:.0f}×)" for v, o in zip(values, ours, strict=True)]
        print(f"| {name} | " + " | ".join(ratios) + " |")


def spams_vahadane(target_image: RgbImage) -> Callable[[RgbImage], RgbImage]:
    """The method of StainTools, with iterations instead of its one second of wall time."""
    import spams

    def separated(image: RgbImage) -> tuple[np.ndarray, np.ndarray]:
        density = -np.log(np.maximum(image.reshape(-1, 3), 1) / 255.0)
        tissue = np.asfortranarray(density[image.reshape(-1, 3).mean(axis=1) < 216].T)
        found = spams.trainDL(
            X=tissue,
            K=2,
            lambda1=0.1,
            mode=2,
            modeD=0,
            posAlpha=True,
            posD=True,
            iter=200,
            verbose=False,
            numThreads=1,
        )
        stains = np.asfortranarray(found[:, np.argsort(-found[0])] / np.linalg.norm(found, axis=0))
        amounts = spams.lasso(
            np.asfortranarray(density.T), D=stains, mode=2, lambda1=0.1, pos=True, numThreads=1
        )
        return stains, amounts.toarray()

    target_stains, target_amounts = separated(target_image)
    highest = np.percentile(target_amounts, 99, axis=1)

    def normalized(image: RgbImage) -> RgbImage:
        _, amounts = separated(image)
        gains = highest / np.percentile(amounts, 99, axis=1)
        light = 255.0 * np.exp(-target_stains @ (amounts * gains[:, np.newaxis]))
        return light.T.reshape(image.shape).astype(np.uint8)

    return normalized


def tiatoolbox_macenko(target_image: RgbImage) -> Callable[[RgbImage], object] | None:
    if peer("tiatoolbox.tools.stainnorm") is None:
        return None
    from tiatoolbox.tools.stainnorm import get_normalizer

    theirs = get_normalizer("macenko")
    theirs.fit(target_image)
    return theirs.transform


def time_two_threads() -> None:
    field, target_image = fields()
    target = fit(target_image, "HE")
    image = np.ascontiguousarray(field[:1024, :1024])

    def work() -> None:
        for _ in range(20):
            normalize(image, target, strict=True)

    def both() -> None:
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    one, two = best_ms(work, most=5), best_ms(both, most=5)
    print(f"\nTwo images at once in two threads: {2.0 * one / two:.2f}× one (1024²).")


def real_images() -> list[Path]:
    kidney = sorted((REAL_DATA / "kidney_compartments").glob("*/*/*[0-9].png"))
    colon = sorted((REAL_DATA / "glas_colon_he" / "images").iterdir())
    return [*kidney, *colon, *sorted((REAL_DATA / "stain").iterdir())]


def optimum() -> None:
    for sparsity in (RECOMMENDED.sparsity, PAPER.sparsity):
        print_gaps(real_images(), sparsity)


def print_gaps(paths: list[Path], sparsity: float) -> None:
    """Relative gap of ours to the best of many starts, and to the others' objective."""
    spams = peer("spams")
    gaps: dict[str, list[float]] = {}
    for path in paths:
        image = read_image(path)
        white = estimate_white(image)
        density = find_tissue(image, white).full_density()
        ours = solve_tissue(find_tissue(image, white), sparsity=sparsity).stain_matrix
        for name, gap in (
            *gaps_to_starts(density, ours, sparsity, n_starts=5),
            *gaps_to_peers(density[:, :: max(1, density.shape[1] // 4000)].copy(), sparsity, spams),
        ):
            gaps.setdefault(name, []).append(gap)
    print(
        f"\n| objective, {len(paths)} real images, λ {sparsity} | images | ours above at most | "
        "above by more than 1e-9 | on average |"
    )
    print("|---|---|---|---|---|")
    for name, values in gaps.items():
        n_above = sum(value > 1e-9 for value in values)
        print(f"| {name} | {len(values)} | {max(values):.1e} | {n_above} | {np.mean(values):.1e} |")


def gaps_to_starts(
    density: np.ndarray, found: np.ndarray, sparsity: float, *, n_starts: int
) -> list[tuple[str, float]]:
    """Compare with the same solver from other starts, all evaluated in double precision."""
    exact = density.T.astype(np.float64)
    ours = objective(exact, found, sparsity=sparsity)
    rng, values = np.random.default_rng(0), [ours]
    for _ in range(n_starts):
        try:
            other = solve(density, sparsity=sparsity, start=rng.dirichlet((2, 2, 2), 2).T)
        except StainError:  # fell onto one stain: no optimum with two
            continue
        values.append(objective(exact, other.stain_matrix, sparsity=sparsity))
    return [("the best of 6 starts, all pixels", (ours - min(values)) / min(values))]


def gaps_to_peers(
    density: np.ndarray, sparsity: float, spams: object | None
) -> list[tuple[str, float]]:
    """Compare with dictionary learning in the matching orientation, on an even sample."""
    from sklearn.decomposition import MiniBatchDictionaryLearning

    exact = np.asfortranarray(density.astype(np.float64))
    ours_matrix = solve(density, sparsity=sparsity).stain_matrix
    ours = objective(exact.T, ours_matrix, sparsity=sparsity)
    learner = MiniBatchDictionaryLearning(
        2,
        alpha=sparsity,
        fit_algorithm="cd",
        transform_algorithm="lasso_cd",
        positive_code=True,
        positive_dict=True,
        max_iter=10,
        random_state=0,
        dict_init=ours_matrix.T.copy(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {"scikit-learn dictionary learning": learner.fit(exact.T).components_.T}
    if spams is not None:
        found["spams, 500 iterations"] = spams.trainDL(
            X=exact,
            K=2,
            lambda1=sparsity,
            mode=2,
            modeD=0,
            posAlpha=True,
            posD=True,
            iter=500,
            verbose=False,
            numThreads=1,
        )
    gaps = []
    for name, matrix in found.items():
        unit = matrix / np.linalg.norm(matrix, axis=0)
        theirs = objective(exact.T, unit, sparsity=sparsity)
        gaps.append((f"{name}, ≤ 8,000 pixels", (ours - theirs) / theirs))
    return gaps


def cohort_share() -> None:
    """Share of decoding and encoding in the time for a PNG crop of 512 px."""
    field, target_image = fields()
    target = fit(target_image, "HE")
    crops = [
        np.ascontiguousarray(field[y : y + 512, x : x + 512])
        for y in range(0, 1024, 256)
        for x in range(0, 1024, 256)
    ]
    files = []
    for crop in crops:
        file = io.BytesIO()
        Image.fromarray(crop).save(file, "PNG")
        files.append(file.getvalue())
    with tempfile.TemporaryDirectory() as folder:
        from glomerulab.images import write_image

        paths = [Path(folder) / f"{k}.png" for k in range(len(files))]
        for path, content in zip(paths, files, strict=True):
            path.write_bytes(content)
        out = Path(folder) / "out.png"
        reading = best_ms(lambda: [read_image(path) for path in paths], most=20) / len(paths)
        writing = best_ms(lambda: [write_image(crop, out) for crop in crops], most=20) / len(paths)
    own = fit(crops[0], "HE")
    per_image = best_ms(lambda: [normalize(crop, target) for crop in crops], most=20) / len(crops)
    per_slide = best_ms(
        lambda: [normalize(crop, target, source=own) for crop in crops], most=20
    ) / len(crops)
    print("\n| one PNG crop of 512² | ms | share of decode and encode | 2,658 crops |")
    print("|---|---|---|---|")
    coding = reading + writing
    print(f"| decode {reading:.1f} and encode {writing:.1f} | {coding:.1f} | | |")
    for name, own_ms in (("per image", per_image), ("per slide", per_slide)):
        total = coding + own_ms
        print(
            f"| with normalisation {name} | {total:.1f} | {coding / total:.0%} | "
            f"{2658 * total / 1e3:.0f} s |"
        )


def cold_start() -> None:
    image = str(REAL_DATA / "stain" / "histolens_example2.tif")
    print("\n| first call in a new process | import, s | fit and transform, s |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        # As for a user: Python keeps its bytecode, which some build machines forbid.
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for name in ("after install (compiles)", "afterwards", "afterwards, again"):
            done = subprocess.run(
                [sys.executable, "-c", COLD, image],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            loading, call = map(float, done.stdout.split())
            print(f"| {name} | {loading:.2f} | {call:.2f} |")


PARTS = {
    "speed": (time_one_image, time_two_threads),
    "cohort": (cohort_share,),
    "cold": (cold_start,),
    "optimum": (optimum,),
}


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ")
    print(f"numpy {np.__version__}; {RECOMMENDED} against {PAPER}.")
    for name in sys.argv[1:] or PARTS:
        for part in PARTS[name]:
            part()
            sys.stdout.flush()


if __name__ == "__main__":
    main()
