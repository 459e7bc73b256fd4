"""Structures of a slide as DICOM: segmentations (SEG) and outlines with measurements (ANN).

They refer to the slide where it is DICOM itself. Of any other slide there is no instance to refer
to: patient and study are then named after the slide, and places are millimetres from its corner.
"""

import datetime as dt
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
from highdicom.ann import (
    AnnotationCoordinateTypeValues,
    AnnotationGroup,
    AnnotationGroupGenerationTypeValues,
    GraphicTypeValues,
    Measurements,
    MicroscopyBulkSimpleAnnotations,
)
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from glomerulab.runtime.files import atomic_write, make_folder
from glomerulab.runtime.jit import U8
from glomerulab.runtime.names import clean_id
from glomerulab.slides.dicom import read_header
from glomerulab.slides.dicom_codes import own, uid
from glomerulab.slides.files import dicom_files, dicom_reference
from glomerulab.slides.slide import Slide
from glomerulab.structures.classes import structure
from glomerulab.structures.maps import (
    MapFrame,
    StructureMap,
    new_layer,
    no_room,
    read_rows,
    write_window,
)
from glomerulab.structures.morphometry import MEASURES, MeasuredObject
from glomerulab.structures.polygons import rings

__all__ = ["write_annotations", "write_segmentations"]

TILE_PX = 512
STRIP_PX = 1 << 22
UM_PER_MM = 1000.0
SECTION_MM = 0.003
"""Thickness that is written where the slide states none: 3 µm, usual for kidney."""
MAX_ID = 64
MAKER = "glomerulab (research use only)"
WHOLE_SLIDE_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"
NORMAL, ALTERED = codes.SCT.AnatomicalStructure, codes.SCT.MorphologicallyAbnormalStructure

# DICOM's and pydicom's lists hold no code for the glomerulus, its tuft, a tubule or the medulla.
KNOWN_CODES = {
    "cortex": Code("50403003", "SCT", "Cortex of kidney"),
    "fibrosis": codes.SCT.Fibrosis,
    "artery": codes.SCT.Artery,
    "capillary": codes.SCT.Capillary,
}
ALTERED_STRUCTURES = frozenset({"fibrosis", "atrophic_tubule", "sclerosed_glomerulus"})
UNITS = {
    "um2": codes.UCUM.SquareMicrometer,
    "um": codes.UCUM.Micrometer,
    "share": codes.UCUM.NoUnits,
    "nuclei": codes.UCUM.NoUnits,
    "mm2": Code("/mm2", "UCUM", "per square millimeter"),
}
"""By the end of a measure's name."""


@dataclass(frozen=True, eq=False, slots=True)
class _Source:
    """What the files refer to."""

    header: Dataset
    """Of level 0 of a DICOM slide, or of an image in its place that does not exist."""
    is_dicom: bool
    key: str
    """Identifies the slide and the map; UIDs follow from it."""


def write_segmentations(structure_map: StructureMap, slide: Slide, folder: Path) -> list[Path]:
    """Write a binary SEG of each structure that is likely somewhere, as ``STRUCTURE.seg.dcm``.

    Structures overlap, and one file per structure is read with less memory than all in one. The
    files are one series; frames are tiles of the map in which the structure occurs.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    make_folder(folder)
    source = _source(slide)
    written = []
    for number, name in enumerate(structure_map.frame.structures, start=1):
        path = folder / f"{name}.seg.dcm"
        with tempfile.TemporaryDirectory(dir=folder, prefix=".mask-") as temporary:
            mask = _mask(structure_map, name, Path(temporary) / "mask.npy")
            if mask is None:
                path.unlink(missing_ok=True)  # of an earlier map
                continue
            dataset = _segmentation(mask, name, number, source, structure_map.frame)
        with atomic_write(path) as partial:
            dataset.save_as(partial)
        written.append(path)
    return written


def _mask(structure_map: StructureMap, name: str, file: Path) -> U8 | None:
    """Return where a structure is likely as an array in a file; None where it is nowhere."""
    frame = structure_map.frame
    mask: U8 = new_layer(file, np.uint8, (frame.height, frame.width))
    # It is read through its mapping, for which some file systems take room, that of glass as well.
    if shutil.disk_usage(file.parent).free < mask.nbytes:
        raise no_room(file.parent, "the mask of a structure takes a byte per pixel")
    occurs = False
    rows = max(1, STRIP_PX // frame.width)
    for top in range(0, frame.height, rows):
        bottom = min(top + rows, frame.height)
        part = (read_rows(structure_map.likely, top, bottom) & frame.bit(name)) != 0
        if part.any():
            occurs = True
            write_window(mask, top, 0, part, rows=part.any(axis=1))
    return mask[None] if occurs else None


def _segmentation(
    mask: U8, name: str, number: int, source: _Source, frame: MapFrame
) -> Segmentation:
    header = source.header
    spacing = (frame.mpp[1] / UM_PER_MM, frame.mpp[0] / UM_PER_MM)
    description = SegmentDescription(
        segment_number=1,
        segment_label=structure(name).name[:MAX_ID],
        segmented_property_category=_category(name),
        segmented_property_type=_code(name),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=_algorithm(),
        anatomic_regions=[codes.SCT.Kidney],
        display_color=CIELabColor.from_rgb(*structure(name).colour),
    )
    found = Segmentation(
        source_images=[header],
        pixel_array=mask,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[description],
        series_instance_uid=uid(source.key, "segmentations"),
        series_number=9001,
        sop_instance_uid=hd.UID(),
        instance_number=number,
        manufacturer=MAKER,
        manufacturer_model_name="glomerulab",
        software_versions=version("glomerulab"),
        device_serial_number="-",
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=spacing, slice_thickness=_thickness(header)
        ),
        plane_positions=[_origin(header)],
        tile_pixel_array=True,
        tile_size=(TILE_PX, TILE_PX),
        content_label="STRUCTURES",
        content_description=f"Likely {structure(name).name.lower()}"[:MAX_ID],
    )
    found.PatientOrientation = ""  # of a slide, unknown
    if not source.is_dicom:
        _remove_references(found)
    return found


def write_annotations(objects: Sequence[MeasuredObject], slide: Slide, path: Path) -> bool:
    """Write the outlines of objects as a Microscopy Bulk Simple Annotations object.

    Each structure is a group of polygons with the measures that any of them has. DICOM's polygons
    have no holes; areas are those of the pixels, without them. On a DICOM slide places are pixels
    of its level 0, else millimetres.

    Returns
    -------
    bool
        False where there is no object; then no file is written, and one of an earlier map removed.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    if not objects:
        path.unlink(missing_ok=True)
        return False
    source = _source(slide)
    names = list(dict.fromkeys(one.structure for one in objects))
    groups = [
        _group(number, [one for one in objects if one.structure == name], source, slide)
        for number, name in enumerate(names, start=1)
    ]
    places = AnnotationCoordinateTypeValues
    found = MicroscopyBulkSimpleAnnotations(
        source_images=[source.header],
        annotation_coordinate_type=places.SCOORD if source.is_dicom else places.SCOORD3D,
        annotation_groups=groups,
        series_instance_uid=uid(source.key, "annotations"),
        series_number=9002,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name="glomerulab",
        software_versions=version("glomerulab"),
        device_serial_number="-",
        content_label="STRUCTURES",
        content_description="Objects of a segmenter, research use only",
    )
    if not source.is_dicom:
        _remove_references(found)
    with atomic_write(path) as partial:
        found.save_as(partial)
    return True


def _group(
    number: int, objects: Sequence[MeasuredObject], source: _Source, slide: Slide
) -> AnnotationGroup:
    name = objects[0].structure
    measures = [measure for measure in MEASURES if any(measure in one.measures for one in objects)]
    return AnnotationGroup(
        number=number,
        uid=hd.UID(),
        label=structure(name).name[:MAX_ID],
        annotated_property_category=_category(name),
        annotated_property_type=_code(name),
        graphic_type=GraphicTypeValues.POLYGON,
        graphic_data=[_points(one, source, slide) for one in objects],
        algorithm_type=AnnotationGroupGenerationTypeValues.AUTOMATIC,
        algorithm_identification=_algorithm(),
        measurements=[_measurements(measure, objects) for measure in measures],
        anatomic_regions=[codes.SCT.Kidney],
        display_color=CIELabColor.from_rgb(*structure(name).colour),
    )


def _points(one: MeasuredObject, source: _Source, slide: Slide) -> npt.NDArray[np.float64]:
    points = np.array(rings(one.polygon)[0])
    if source.is_dicom:
        return points
    # The origin is the centre of the first pixel.
    mm = (points - 0.5) * np.array(slide.mpp_xy) / UM_PER_MM
    return np.column_stack([mm, np.zeros(len(mm))])


def _measurements(measure: str, objects: Sequence[MeasuredObject]) -> Measurements:
    values = [one.measures[measure].value if measure in one.measures else np.nan for one in objects]
    unit = UNITS[measure.rsplit("_", 1)[-1]]
    return Measurements(own(measure, measure.replace("_", " ")), np.array(values), unit)


def _source(slide: Slide) -> _Source:
    header = _dicom_header(slide.path)
    if header is not None:
        return _Source(header, is_dicom=True, key=str(header.SOPInstanceUID))
    return _Source(_stand_in(slide), is_dicom=False, key=slide.slide_id)


def _dicom_header(path: Path) -> Dataset | None:
    """Return the header of level 0 of a DICOM slide; None for another slide."""
    files = dicom_files(path if path.is_dir() else path.parent)
    reference = dicom_reference(path)
    if reference is None:
        return None
    wanted = reference.instances[0][1]
    for file in (path, *files):
        found = read_header(file, ["SOPInstanceUID"])
        if found is not None and found.get("SOPInstanceUID") == wanted:
            return pydicom.dcmread(file, stop_before_pixels=True)
    return None


def _stand_in(slide: Slide) -> Dataset:
    """Return the header of a slide as highdicom needs it, for one that is not DICOM."""
    key = slide.slide_id
    now = dt.datetime.now(dt.UTC)
    name = clean_id(key, most=MAX_ID, without="\\")
    spacing = [mpp / UM_PER_MM for mpp in reversed(slide.mpp_xy)]
    measures = _dataset(PixelSpacing=spacing, SliceThickness=SECTION_MM)
    zero = {f"{axis}OffsetInSlideCoordinateSystem": 0 for axis in "XYZ"}
    specimen = _dataset(
        SpecimenIdentifier=name,
        SpecimenUID=uid(key, "specimen"),
        IssuerOfTheSpecimenIdentifierSequence=[],
        SpecimenPreparationSequence=[],
    )
    return _dataset(
        SpecificCharacterSet="ISO_IR 192",
        PatientID=name,
        PatientName="",
        PatientBirthDate="",
        PatientSex="",
        AccessionNumber="",
        StudyID="",
        StudyDate=now.strftime("%Y%m%d"),
        StudyTime=now.strftime("%H%M%S"),
        StudyInstanceUID=uid(key, "study"),
        SeriesInstanceUID=uid(key, "slide"),
        SOPInstanceUID=uid(key, "image"),
        SOPClassUID=WHOLE_SLIDE_IMAGE,
        FrameOfReferenceUID=uid(key, "frame"),
        PositionReferenceIndicator="SLIDE_CORNER",
        ContainerIdentifier=name,
        IssuerOfTheContainerIdentifierSequence=[],
        ContainerTypeCodeSequence=[CodedConcept.from_code(codes.SCT.MicroscopeSlide)],
        SpecimenDescriptionSequence=[specimen],
        Modality="SM",
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        ImageOrientationSlide=[1, 0, 0, 0, 1, 0],
        TotalPixelMatrixColumns=slide.dimensions[0],
        TotalPixelMatrixRows=slide.dimensions[1],
        TotalPixelMatrixOriginSequence=[_dataset(**zero)],
        Rows=TILE_PX,
        Columns=TILE_PX,
        NumberOfFrames=1,
        DimensionOrganizationType="TILED_FULL",
        SharedFunctionalGroupsSequence=[_dataset(PixelMeasuresSequence=[measures])],
    )


def _dataset(**fields: Any) -> Dataset:  # noqa: ANN401 - values of DICOM
    found = Dataset()
    for name, value in fields.items():
        setattr(found, name, value)
    return found


def _remove_references(found: Dataset) -> None:
    """Remove the references to an image that does not exist."""
    for name in ("ReferencedImageSequence", "ReferencedSeriesSequence", "SourceImageSequence"):
        if name in found:
            delattr(found, name)
    for frame in found.get("PerFrameFunctionalGroupsSequence", []):
        if "DerivationImageSequence" in frame:
            del frame.DerivationImageSequence


def _origin(header: Dataset) -> hd.PlanePositionSequence:
    offset = header.TotalPixelMatrixOriginSequence[0]
    position = [float(offset.get(f"{axis}OffsetInSlideCoordinateSystem", 0) or 0) for axis in "XYZ"]
    return hd.PlanePositionSequence(
        hd.CoordinateSystemNames.SLIDE, image_position=position, pixel_matrix_position=(1, 1)
    )


def _thickness(header: Dataset) -> float:
    shared = header.SharedFunctionalGroupsSequence[0]
    stated = shared.PixelMeasuresSequence[0].get("SliceThickness")
    return float(stated) if stated else SECTION_MM


def _category(name: str) -> Any:  # noqa: ANN401 - pydicom's codes are untyped
    return ALTERED if name in ALTERED_STRUCTURES else NORMAL


def _code(name: str) -> Code | CodedConcept:
    return KNOWN_CODES.get(name) or own(name, structure(name).name)


def _algorithm() -> hd.AlgorithmIdentificationSequence:
    return hd.AlgorithmIdentificationSequence(
        name="glomerulab segment",
        family=codes.DCM.ArtificialIntelligence,
        version=version("glomerulab"),
    )
