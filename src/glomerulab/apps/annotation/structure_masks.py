"""Write the shapes drawn on slides as masks that `train-segmenter` reads.

Structures lie within each other, so each has a mask of its own.
"""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tomli_w
from PIL import Image

from glomerulab.apps.annotation.records import DrawnRegion
from glomerulab.apps.annotation.shapes import structure_of
from glomerulab.apps.annotation.store.accounts import login_key
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.regions import list_regions
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import RegionError, SlideError
from glomerulab.geometry import Box
from glomerulab.images import write_image
from glomerulab.runtime.files import atomic_write, make_folder
from glomerulab.runtime.names import safe_name
from glomerulab.slides.regions.polygons import filled
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL
from glomerulab.slides.slide import open_slide
from glomerulab.structures.classes import in_drawing_order

MAX_PIXELS = 200_000_000
"""Of one image; a larger one is trained on by its region file."""


@dataclass(slots=True)
class MaskSummary:
    """The result of writing masks."""

    n_slides: int = 0
    n_shapes: dict[str, int] = field(default_factory=dict)
    """Shapes by structure."""
    n_proposals: int = 0
    """Proposals that nobody accepted or changed; they are in no mask."""
    without_shapes: list[str] = field(default_factory=list)
    """Slides that nobody drew on; they get no masks."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why a slide has no masks, by its id."""


def write_masks(
    store: Store,
    slides: Sequence[SlideEntry],
    out: Path,
    *,
    by: str,
    mpp: float,
    annotator: str | None = None,
) -> MaskSummary:
    """Write an image of each slide, a mask of each structure, and the file to train with.

    In `out`: ``images/SLIDE.png``, ``masks/STRUCTURE/SLIDE.png`` with 0 and 255, ``images.csv``,
    and ``segmenter.toml``, in which the set knows the structures that were drawn on every slide.

    Parameters
    ----------
    by : str
        Login of an owner.
    mpp : float
        Micrometres per pixel of images and masks.
    annotator : str, optional
        Take the shapes of this account alone; by default those of all together.

    Raises
    ------
    RegionError
        If nothing was drawn on any of the slides.
    """
    done = MaskSummary()
    drawn: dict[str, dict[str, list[DrawnRegion]]] = {}
    for entry in slides:
        shapes = [
            one
            for one in list_regions(store, login=by, slide_id=entry.slide_id)
            if annotator is None or one.login == login_key(annotator)
        ]
        accepted = [one for one in shapes if PROPOSAL_LABEL not in one.labels]
        done.n_proposals += len(shapes) - len(accepted)
        if accepted:
            drawn[entry.slide_id] = _by_structure(accepted)
        else:
            done.without_shapes.append(entry.slide_id)
    if not drawn:
        raise RegionError(
            "no shape was drawn or accepted on these slides; draw some, or give other slides"
        )
    rows: list[Mapping[str, object]] = []
    structures = in_drawing_order({name for one in drawn.values() for name in one})
    for entry in slides:
        if entry.slide_id not in drawn:
            continue
        try:
            row = _write_slide(entry, drawn[entry.slide_id], structures, out, mpp)
        except SlideError as error:
            done.failures[entry.slide_id] = error.message
            continue
        rows.append(row)
        done.n_slides += 1
        for name, shapes in drawn[entry.slide_id].items():
            done.n_shapes[name] = done.n_shapes.get(name, 0) + len(shapes)
    if rows:
        known = [name for name in structures if all(name in one for one in drawn.values())]
        _write_tables(out, rows, structures, known, mpp)
    return done


def _by_structure(shapes: Sequence[DrawnRegion]) -> dict[str, list[DrawnRegion]]:
    found: dict[str, list[DrawnRegion]] = defaultdict(list)
    for one in shapes:
        found[structure_of(one.labels)].append(one)
    return found


def _write_slide(
    entry: SlideEntry,
    drawn: Mapping[str, Sequence[DrawnRegion]],
    structures: Sequence[str],
    out: Path,
    mpp: float,
) -> Mapping[str, object]:
    """Write the image and the masks of a slide, empty ones too; return its row of the table."""
    name = f"{safe_name(entry.slide_id)}.png"
    with open_slide(entry.path, mpp_override=entry.mpp) as slide:
        width, height = slide.dimensions
        n_pixels = width * slide.mpp_xy[0] * height * slide.mpp_xy[1] / mpp**2
        if n_pixels > MAX_PIXELS:
            raise SlideError(
                f"its image at {mpp:g} µm per pixel would have {n_pixels / 1e6:.0f} million pixels "
                f"(at most {MAX_PIXELS // 1_000_000}); give a larger --mpp, or train on the slide "
                "with its region file (--what regions)"
            )
        image = slide.read_region(Box(0, 0, width, height), mpp=mpp)
        stain = entry.stain or slide.stain
    size = image.shape[1], image.shape[0]
    make_folder(out / "images")
    write_image(image, out / "images" / name)
    del image
    for structure_id in structures:
        mask = np.zeros((size[1], size[0]), dtype=np.uint8)
        for one in drawn.get(structure_id, ()):
            step = (width / size[0], height / size[1])
            place, inside = filled((one.outline, *one.holes), step=step, shape=mask.shape)
            mask[place][inside] = 255
        make_folder(out / "masks" / structure_id)
        with atomic_write(out / "masks" / structure_id / name) as temporary:
            Image.fromarray(mask).save(temporary, format="PNG")
    return {
        "image": f"images/{name}",
        "patient_id": entry.patient_id or entry.slide_id,
        "stain": stain or "",
        "mpp": mpp,
    }


def _write_tables(
    out: Path,
    rows: Sequence[Mapping[str, object]],
    structures: Sequence[str],
    known: Sequence[str],
    mpp: float,
) -> None:
    with (
        atomic_write(out / "images.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    config = {
        "out": "run",
        "mpp": mpp,
        "sets": [
            {
                "images": "images.csv",
                "masks": "masks",
                "group": "patient_id",
                "knows": list(known),
                "folders": {name: name for name in structures},
            }
        ],
    }
    with atomic_write(out / "segmenter.toml") as temporary:
        temporary.write_text(tomli_w.dumps(config), encoding="utf-8")
