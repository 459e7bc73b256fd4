"""Write what a segmenter found on a slide, in the formats that other programs open."""

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from glomerulab.runtime.files import atomic_write, make_folder
from glomerulab.runtime.tables import not_a_formula
from glomerulab.slides.slide import Slide
from glomerulab.structures.areas import summarize
from glomerulab.structures.dicom import write_annotations, write_segmentations
from glomerulab.structures.geojson import write_geojson
from glomerulab.structures.label_image import write_label_image
from glomerulab.structures.maps import StructureMap
from glomerulab.structures.measuring import measure_objects
from glomerulab.structures.morphometry import MEASURES, MeasuredObject
from glomerulab.structures.summary import (
    SUMMARY_FILE,
    HardlyFound,
    SlideSummary,
    write_summary,
)

__all__ = [
    "STRUCTURE_FORMATS",
    "StructureFormat",
    "write_objects_csv",
    "write_structures",
]

StructureFormat = Literal["geojson", "csv", "labels", "dicom"]
STRUCTURE_FORMATS: tuple[StructureFormat, ...] = get_args(StructureFormat)

OBJECTS_FILE = "objects.csv"
GEOJSON_FILE = "structures.geojson"
LABELS_FILE = "labels.tif"
DICOM_FOLDER = "dicom"
ANNOTATIONS_FILE = "objects.ann.dcm"

NOTE = "research use only"
COLUMNS = (
    "object_id",
    "slide_id",
    "structure",
    "x",
    "y",
    "width",
    "height",
    "touches_edge",
    "in_cortex",
    "certainty",
    *(name for measure in MEASURES for name in (measure, f"{measure}_error")),
    "note",
)


def write_structures(
    structure_map: StructureMap,
    slide: Slide,
    folder: Path,
    *,
    formats: Collection[StructureFormat] = STRUCTURE_FORMATS,
    slide_id: str | None = None,
    stain: str | None = None,
    notes: Sequence[str] = (),
    not_assessed: Mapping[str, HardlyFound] | None = None,
) -> SlideSummary:
    """Write the structures of a slide into a folder, and return their summary.

    Parameters
    ----------
    structure_map : StructureMap
    slide : Slide
        The open slide of the map.
    folder : Path
        Made if it does not exist; its files are replaced.
    formats : collection of str
        ``geojson`` (``structures.geojson``, for QuPath), ``csv`` (``objects.csv``), ``labels``
        (``labels.tif``, a pyramid), ``dicom`` (``dicom/``: a SEG per structure, and an ANN);
        ``summary.json`` is always written.
    slide_id : str, optional
        By default the name of the slide's file.
    stain : str, optional
        HE, PAS, …; by default what the slide's metadata name.
    notes : sequence of str, optional
        What is doubtful about the map, for the summary.
    not_assessed : mapping, optional
        By id, structures that are outlined and not counted, measured or taken as a part of others.

    Raises
    ------
    MissingMppError, SlideError
        If the slide's pixels cannot be read.
    OutputError
        If a file cannot be written.
    """
    make_folder(folder)
    slide_id, stain = slide_id or slide.slide_id, stain or slide.stain
    if not_assessed:
        frame = replace(structure_map.frame, not_assessed=tuple(not_assessed))
        structure_map = replace(structure_map, frame=frame)
    objects, doubts = measure_objects(structure_map, slide, stain=stain)
    summary = summarize(
        structure_map,
        objects,
        slide_id=slide_id,
        stain=stain,
        notes=[*notes, *doubts],
        not_assessed=not_assessed,
    )
    if "csv" in formats:
        write_objects_csv(objects, slide_id, folder / OBJECTS_FILE)
    if "geojson" in formats:
        write_geojson(structure_map, objects, slide, folder / GEOJSON_FILE)
    if "labels" in formats:
        write_label_image(structure_map, folder / LABELS_FILE)
    if "dicom" in formats:
        write_segmentations(structure_map, slide, folder / DICOM_FOLDER)
        write_annotations(objects, slide, folder / DICOM_FOLDER / ANNOTATIONS_FILE)
    write_summary(summary, folder / SUMMARY_FILE)
    return summary


def write_objects_csv(objects: Iterable[MeasuredObject], slide_id: str, path: Path) -> None:
    """Write one row per object; boxes in level-0 pixels, an empty cell is not measured."""
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8-sig") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for one in objects:
            writer.writerow(
                {name: not_a_formula(cell) for name, cell in _row(one, slide_id).items()}
            )


def _row(one: MeasuredObject, slide_id: str) -> dict[str, object]:
    left, top, right, bottom = one.polygon.bounds
    row: dict[str, object] = {
        "object_id": one.object_id,
        "slide_id": slide_id,
        "structure": one.structure,
        "x": round(left),
        "y": round(top),
        "width": round(right - left),
        "height": round(bottom - top),
        "touches_edge": int(one.touches_edge),
        "in_cortex": "" if one.in_cortex is None else int(one.in_cortex),
        "certainty": f"{one.certainty:.4f}",
        "note": NOTE,
    }
    for name, measure in one.measures.items():
        row[name] = _number(measure.value)
        if measure.error is not None:
            row[f"{name}_error"] = _number(measure.error)
    return row


def _number(value: float) -> str:
    return f"{value:.6g}"
