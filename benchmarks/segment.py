"""What segmenting a slide costs, beside the bare network on the same tiles.

    python benchmarks/segment.py [--side 20000] [--own-mpp 0.5] [--mpp 1.0] [--share 1.0] \
        [--tile 512] [--run RUN]

A synthetic slide of copies of one phantom section, of which `--share` of the height is tissue, is
segmented by RUN, or by the shipped architecture with random weights (the cost is the same). Tiles
of the slide pass the bare network in the same process, some before, between and after, so that
other programs slow both. Research use only.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyvips

from glomerulab.inference.blending import TileSettings
from glomerulab.inference.segmenter import Segmenter, open_segmenter
from glomerulab.inference.slide_segmenter import segment_slide
from glomerulab.models.card import SegmenterCard
from glomerulab.models.segmentation import create_segmenter, save_segmenter
from glomerulab.phantom.slides import write_phantom_slides
from glomerulab.runtime.sealing import write_seal
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.slide import open_slide
from glomerulab.structures.write import write_structures

STRUCTURES = (
    "cortex",
    "medulla",
    "fibrosis",
    "tubule",
    "atrophic_tubule",
    "artery",
    "glomerulus",
    "sclerosed_glomerulus",
    "tuft",
)
CORES = ("tubule", "atrophic_tubule", "artery", "glomerulus", "sclerosed_glomerulus")


def random_run(folder: Path, mpp: float) -> Path:
    """Write the shipped architecture with random weights."""
    card = SegmenterCard(
        encoder="tf_efficientnet_lite2",
        structures=STRUCTURES,
        cores=CORES,
        mpp=mpp,
        patch_px=256,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    save_segmenter(folder / "checkpoint", create_segmenter(card).state_dict(), card)
    write_seal(folder)
    return folder


def large_slide(home: Path, side: int, mpp: float, share: float) -> Path:
    """Write copies of the tissue of a phantom slide, and glass below."""
    table = write_phantom_slides(home / "phantom", n_patients=1, n_glomeruli=6, seed=7, mpp=mpp)
    with open_slide(next(table.parent.glob("**/*.tif*"))) as slide:
        width, height = slide.dimensions
        pixels = slide.read_level(0, (0, 0), (width, height)).convert("RGB")
        glass = slide.background
    section = np.asarray(pixels)
    is_tissue = section.astype(int).min(axis=2) < min(glass) - 20
    rows = np.flatnonzero(is_tissue.mean(axis=1) > 0.5)
    columns = np.flatnonzero(is_tissue.mean(axis=0) > 0.5)
    section = section[rows[0] : rows[-1], columns[0] : columns[-1]]
    piece = pyvips.Image.new_from_array(np.ascontiguousarray(section))
    across, down = (-(-side // length) for length in (piece.width, piece.height))
    n_rows = round(side * share)
    whole = piece.replicate(across, down).crop(0, 0, side, n_rows)
    whole = whole.embed(0, 0, side, side, extend="background", background=list(glass))
    path = home / "large.tif"
    write_pyramid(whole, path, mpp=mpp)
    return path


class Bare:
    """A segmenter that also runs its network on the same tiles by itself, now and then."""

    def __init__(self, segmenter: Segmenter, every: int) -> None:
        self.card, self._segmenter, self._every = segmenter.card, segmenter, every
        self.n_threads, self.threads = segmenter.n_threads, segmenter.threads
        self.n = 0
        self.bare_s: list[float] = []
        self.extra_s = 0.0

    def probabilities(self, images):
        """Run the network; every so often twice, the second time under the clock."""
        found = self._segmenter.probabilities(images)
        self.n += 1
        if self.n % self._every == 0:
            start = time.perf_counter()
            self._segmenter.probabilities(images)
            self.bare_s.append(time.perf_counter() - start)
            self.extra_s += self.bare_s[-1]
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--own-mpp", type=float, default=0.5)
    parser.add_argument("--mpp", type=float, default=1.0)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--tile", type=int, default=TileSettings().side_px)
    parser.add_argument("--overlap", type=int, default=TileSettings().overlap_px)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        home = Path(text)
        path = large_slide(home, given.side, given.own_mpp, given.share)
        run = given.run or random_run(home / "run", given.mpp)
        segmenter = Bare(open_segmenter(run), given.every)
        with open_slide(path) as slide:
            segmenter.probabilities(np.full((1, given.tile, given.tile, 3), 200, np.uint8))
            segmenter.n, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            start = time.perf_counter()
            done = segment_slide(
                slide,
                segmenter,
                home / "map",
                tiles=TileSettings(given.tile, given.overlap),
            )
            n = segmenter.n_threads
            seconds = time.perf_counter() - start - segmenter.extra_s / n
            bare = float(np.mean(segmenter.bare_s)) * done.n_tiles / n
            facts = {
                "tiles": done.n_tiles,
                "tissue_mm2": round(done.tissue_um2 / 1e6, 2),
                "seconds": round(seconds, 1),
                "seconds_of_the_bare_network": round(bare, 1),
                "ratio": round(bare / seconds, 3),
                "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                "mib_before": round(before / 1024),
            }
            if given.write:
                start = time.perf_counter()
                write_structures(done.map, slide, home / "out")
                facts["seconds_of_writing"] = round(time.perf_counter() - start, 1)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                facts["peak_mib_with_writing"] = round(peak / 1024)
        print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
