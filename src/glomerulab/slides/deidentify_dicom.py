"""Copy a DICOM slide without identity: elements by an allow-list, at any depth.

The list is what the basic profile of PS3.15 (annex E) leaves of a whole-slide image, and its pixels
need. Numbers are kept, and texts that are words of the standard; all UIDs of instances are new.
Label, overview and thumbnail are left out. Each level is held in memory while it is copied.
"""

import io
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import (
    JPEG2000,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    VLWholeSlideMicroscopyImageStorage,
    generate_uid,
)

from glomerulab.errors import OutputError, SlideError
from glomerulab.runtime.files import allowed_permissions, make_folder, partial_folder
from glomerulab.slides.dicom import read_file, read_header
from glomerulab.slides.files import dicom_files
from glomerulab.slides.removed_text import RemovedText
from glomerulab.slides.scrubbing import scrubbed_icc, scrubbed_j2k, scrubbed_jpeg

__all__ = ["deidentify_dicom"]

NUMBERS = frozenset(
    [
        "SamplesPerPixel",
        "PlanarConfiguration",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "LossyImageCompressionRatio",
        "InstanceNumber",
        "ImagedVolumeWidth",
        "ImagedVolumeHeight",
        "ImagedVolumeDepth",
        "TotalPixelMatrixColumns",
        "TotalPixelMatrixRows",
        "TotalPixelMatrixFocalPlanes",
        "ImageOrientationSlide",
        "XOffsetInSlideCoordinateSystem",
        "YOffsetInSlideCoordinateSystem",
        "ZOffsetInSlideCoordinateSystem",
        "ColumnPositionInTotalImagePixelMatrix",
        "RowPositionInTotalImagePixelMatrix",
        "DimensionIndexValues",
        "DimensionIndexPointer",
        "FunctionalGroupPointer",
        "NumberOfOpticalPaths",
        "ObjectiveLensPower",
        "ObjectiveLensNumericalAperture",
        "PixelSpacing",
        "SliceThickness",
        "SpacingBetweenSlices",
        "InConcatenationNumber",
        "InConcatenationTotalNumber",
        "ConcatenationFrameOffsetNumber",
    ]
)
SEQUENCES = frozenset(
    [
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "PixelMeasuresSequence",
        "PlanePositionSlideSequence",
        "FrameContentSequence",
        "OpticalPathSequence",
        "OpticalPathIdentificationSequence",
        "WholeSlideMicroscopyImageFrameTypeSequence",
        "TotalPixelMatrixOriginSequence",
        "DimensionOrganizationSequence",
        "DimensionIndexSequence",
    ]
)
UIDS = frozenset(
    [
        "SOPInstanceUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "FrameOfReferenceUID",
        "DimensionOrganizationUID",
        "PyramidUID",
        "ConcatenationUID",
        "SOPInstanceUIDOfConcatenationSource",
    ]
)
YES_NO = frozenset({"YES", "NO"})
IMAGE_TYPES = frozenset({"ORIGINAL", "DERIVED", "PRIMARY", "VOLUME", "NONE", "RESAMPLED"})
WORDS = {
    "ImageType": IMAGE_TYPES,
    "FrameType": IMAGE_TYPES,
    "Modality": frozenset({"SM"}),
    "VolumetricProperties": frozenset({"VOLUME"}),
    "PhotometricInterpretation": frozenset(
        {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "MONOCHROME1", "MONOCHROME2"}
    ),
    "DimensionOrganizationType": frozenset({"TILED_FULL", "TILED_SPARSE"}),
    "LossyImageCompression": frozenset({"00", "01"}),
    "LossyImageCompressionMethod": frozenset({"ISO_10918_1", "ISO_15444_1"}),
    "FocusMethod": frozenset({"AUTO", "MANUAL"}),
    "ExtendedDepthOfField": YES_NO,
    "BurnedInAnnotation": frozenset({"NO"}),
    "SpecimenLabelInImage": frozenset({"NO"}),
    "PositionReferenceIndicator": frozenset({"SLIDE_CORNER"}),
    "SOPClassUID": frozenset({str(VLWholeSlideMicroscopyImageStorage)}),
}
CODES = {
    "IlluminationTypeCodeSequence": {("111744", "DCM"): "Brightfield illumination"},
    "IlluminationColorCodeSequence": {
        ("414298005", "SCT"): "Full Spectrum",
        ("R-102C0", "SRT"): "Full Spectrum",
        ("371251000", "SCT"): "White",
    },
}
EMPTY = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
    "SeriesNumber",
    "PositionReferenceIndicator",
]
"""Elements that each object must have, and may leave empty."""
DUMMIES = {
    "ContentDate": "19000101",
    "ContentTime": "000000",
    "AcquisitionDateTime": "19000101000000",
    "Manufacturer": "REMOVED",
    "ManufacturerModelName": "REMOVED",
    "DeviceSerialNumber": "REMOVED",
    "SoftwareVersions": "REMOVED",
    "ContainerIdentifier": "REMOVED",
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "Basic profile of PS3.15, by an allow-list",
    "LongitudinalTemporalInformationModified": "REMOVED",
}
"""Elements that each object must have, with a value."""
SHORT_ID = re.compile(r"\d{1,3}")
PLAIN_NUMBER = re.compile(r"[-+]?(\d{1,12}(\.\d{0,18})?|\.\d{1,18})([eE][-+]?\d{1,2})?")
NUMERIC = frozenset({"US", "UL", "SS", "SL", "UV", "SV", "FL", "FD", "AT", "IS", "DS"})
RAW = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
Scrub = Callable[[bytes, list[bytes] | None], bytes]
SCRUBS: dict[str, Scrub] = {
    str(JPEGBaseline8Bit): scrubbed_jpeg,
    str(JPEGExtended12Bit): scrubbed_jpeg,
    str(JPEG2000): scrubbed_j2k,
    str(JPEG2000Lossless): scrubbed_j2k,
}
LEVEL_NAME = re.compile(r"level-\d+\.dcm")


def deidentify_dicom(
    slide: Path, out: Path, *, overwrite: bool, check: Callable[[Path], object]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write the levels of a DICOM slide to a new folder.

    Parameters
    ----------
    slide : Path
        One of the files, or their folder.
    check : callable
        Called with the folder of the copy before it gets its name; raises if its pixels differ.

    Returns
    -------
    images, elements : tuple of str
        Kinds of images, and keywords of elements, that were left out.

    Raises
    ------
    SlideError
        If the slide has no level, pixels that cannot be copied or that show the label, or the copy
        fails its verification.
    OutputError
        If the folder exists, unless it holds such a copy alone and `overwrite` is given.
    """
    series = _read_series(slide)
    levels = [(path, data) for path, data in series if _is_level(data, path)]
    if not levels:
        raise SlideError("the DICOM slide has no level of a pyramid", where=str(slide))
    with _new_copy(out, overwrite=overwrite) as folder:
        removed, uids, gone = RemovedText(), dict[str, str](), set[str]()
        for path, data in series:
            removed.add(path.stem, "the name of a file")
            copy: Dataset = Dataset()
            if any(data is one for _, one in levels):
                dropped: list[bytes] = []
                copy = _copy(data, uids, dropped)
                for each in dropped:
                    removed.add_bytes(each, "a comment beside its pixels")
            _add_removed(data, copy, removed, gone if copy else set())
            _add_removed(data.file_meta, FileMetaDataset(), removed, set())
            removed.add_bytes(bytes(data.preamble or b""), "its preamble")
            if copy:
                target = folder / f"level-{len(list(folder.iterdir())) + 1}.dcm"
                pydicom.dcmwrite(target, copy, enforce_file_format=True)
                target.chmod(target.stat().st_mode & allowed_permissions())
        removed.keep(_own_words(uids))
        for (path, data), target in zip(levels, sorted(folder.iterdir(), key=_number), strict=True):
            _verify(path, data, target, uids, removed)
        check(folder)
    kinds = {str(kind).lower() for _, data in series for kind in data.get("ImageType", [])[2:3]}
    return tuple(sorted(kinds - {"volume"})), tuple(sorted(gone))


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("level-"))


@contextmanager
def _new_copy(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder that gets the name `out` when the block ends without error."""
    if out.exists():
        is_copy = out.is_dir() and all(LEVEL_NAME.fullmatch(one.name) for one in out.iterdir())
        if not (is_copy and overwrite):
            raise OutputError(
                "the copy of a DICOM slide is a folder; choose a name that does not exist",
                where=str(out),
            )
    make_folder(out.parent)
    with partial_folder(out) as folder:
        yield folder
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)


def _read_series(slide: Path) -> list[tuple[Path, FileDataset]]:
    """Return the files of a slide, which are of one series."""
    files = dicom_files(slide if slide.is_dir() else slide.parent)
    if slide.is_file() and slide not in files:
        files.append(slide)
    headers = [(path, read_header(path, ["SeriesInstanceUID"])) for path in files]
    of = {path: str(one.get("SeriesInstanceUID")) for path, one in headers if one is not None}
    if slide.is_dir() and len(set(of.values())) > 1:
        raise SlideError(
            "the folder holds several DICOM slides; give one file of the slide", where=str(slide)
        )
    own = of.get(slide) if slide.is_file() else next(iter(of.values()), None)
    if own is None:
        raise SlideError("the slide is damaged, or no DICOM", where=str(slide))
    return [(path, read_file(path)) for path, series in of.items() if series == own]


def _is_level(data: Dataset, path: Path) -> bool:
    kinds = set(data.get("ImageType", []))
    if "VOLUME" not in kinds or kinds & {"LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER"}:
        return False
    for name in ("SpecimenLabelInImage", "BurnedInAnnotation"):
        if str(data.get(name, "NO")) != "NO":
            raise SlideError(
                f"its pixels may show the label ({name} is {data.get(name)}); export the slide "
                "without it, nothing was written",
                where=str(path),
            )
    return True


def _copy(data: FileDataset, uids: dict[str, str], dropped: list[bytes]) -> Dataset:
    """Return what is kept of a file, with new UIDs and scrubbed frames."""
    syntax = data.file_meta.TransferSyntaxUID
    copy = _kept(data, uids)
    for name in EMPTY:
        if name not in copy:
            setattr(copy, name, "")
    for name, value in DUMMIES.items():
        setattr(copy, name, value)
    copy.DeidentificationMethodCodeSequence = Sequence(
        [_code("113100", "DCM", "Basic Application Confidentiality Profile")]
    )
    specimen = Dataset()
    specimen.SpecimenIdentifier = "REMOVED"
    specimen.SpecimenUID = _new_uid(str(data.get("SOPInstanceUID")) + " specimen", uids)
    specimen.IssuerOfTheSpecimenIdentifierSequence = Sequence([])
    specimen.SpecimenPreparationSequence = Sequence([])
    copy.SpecimenDescriptionSequence = Sequence([specimen])
    copy.IssuerOfTheContainerIdentifierSequence = Sequence([])
    copy.ContainerTypeCodeSequence = Sequence([])
    copy.AcquisitionContextSequence = Sequence([])
    frames = _frames(data)
    if syntax in SCRUBS:
        copy.PixelData = encapsulate([SCRUBS[syntax](frame, dropped) for frame in frames])
        copy["PixelData"].VR = "OB"
    else:
        (pixels,) = frames
        copy.PixelData = pixels + b"\0" * (len(pixels) % 2)
        copy["PixelData"].VR = "OB" if int(data.BitsAllocated) == 8 else "OW"
        dropped.append(data.PixelData[len(pixels) :])
    copy.file_meta = FileMetaDataset()
    copy.file_meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    copy.file_meta.TransferSyntaxUID = syntax
    return copy


def _frames(data: FileDataset) -> list[bytes]:
    """Return the compressed frames, or all raw pixels as one."""
    syntax = data.file_meta.TransferSyntaxUID
    n_frames = int(data.get("NumberOfFrames") or 1)
    if syntax in SCRUBS:
        frames = generate_frames(data.PixelData, number_of_frames=n_frames)
        # The even length that DICOM asks for adds a byte after the end.
        return [one[:-1] if one.endswith(b"\xff\xd9\0") else one for one in map(bytes, frames)]
    if syntax not in RAW:
        raise ValueError(f"pixels in {syntax.name} cannot be looked through")
    n_samples = int(data.Rows) * int(data.Columns) * int(data.SamplesPerPixel)
    n_bytes = n_frames * n_samples * int(data.BitsAllocated) // 8
    if len(data.PixelData) < n_bytes:
        raise ValueError("its pixels are cut short")
    return [data.PixelData[:n_bytes]]


def _kept(data: Dataset, uids: dict[str, str]) -> Dataset:
    copy = Dataset()
    for element in data:
        name, value = element.keyword, element.value
        if name in UIDS:
            setattr(copy, name, _new_uid(str(value), uids))
        elif name in SEQUENCES and element.VR == "SQ":
            setattr(copy, name, Sequence([_kept(item, uids) for item in value]))
        elif name in CODES and element.VR == "SQ":
            pairs = [(str(one.get("CodeValue")), str(one.get(DESIGNATOR))) for one in value]
            known = [_code(*one, CODES[name][one]) for one in pairs if one in CODES[name]]
            if known:
                setattr(copy, name, Sequence(known))
        elif name == "ICCProfile":
            if profile := scrubbed_icc(bytes(value)):
                copy.ICCProfile = profile + b"\0" * (len(profile) % 2)
        elif _is_harmless(name, value):
            copy[name] = element
    return copy


DESIGNATOR = "CodingSchemeDesignator"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _new_uid(old: str, uids: dict[str, str]) -> str:
    return uids.setdefault(old, str(generate_uid(prefix=None)))


def _is_harmless(name: str, value: object) -> bool:
    """Return whether an element holds numbers, or words of the standard."""
    values = value if isinstance(value, MultiValue | list) else [value]
    if name in NUMBERS:
        return all(
            isinstance(one, BaseTag)
            or (isinstance(one, int | float) and PLAIN_NUMBER.fullmatch(str(one)))
            for one in values
        )
    if name == "OpticalPathIdentifier":
        return bool(SHORT_ID.fullmatch(str(value)))
    return name in WORDS and all(str(one) in WORDS[name] for one in values)


def _own_words(uids: dict[str, str]) -> bytes:
    """Return the texts that a copy holds on purpose."""
    known = [one for codes in CODES.values() for one in codes.items()]
    meanings = [part for (value, scheme), meaning in known for part in (value, scheme, meaning)]
    words = [word for one in WORDS.values() for word in one]
    parts = [*DUMMIES.values(), *words, *meanings, *uids.values()]
    parts += ["Basic Application Confidentiality Profile", f"PYDICOM {pydicom.__version__}"]
    parts += [str(pydicom.uid.PYDICOM_IMPLEMENTATION_UID), *SCRUBS, *map(str, RAW)]
    return " ".join(parts).encode()


def _add_removed(data: Dataset, copy: Dataset, removed: RemovedText, gone: set[str]) -> None:
    """Remember the texts that a copy lacks, at any depth, and the names of the elements."""
    for element in data:
        name = element.keyword or str(element.tag)
        kept = copy.get(name) if element.keyword else None
        if element.VR == "SQ":
            for number, item in enumerate(element.value):
                inner = kept[number] if kept is not None and number < len(kept) else Dataset()
                _add_removed(item, inner, removed, gone)
            continue
        if name == "PixelData" or kept == element.value:
            continue
        gone.add(name)
        if isinstance(element.value, bytes):
            removed.add_bytes(element.value, name)
            if name == "ICCProfile":
                removed.keep(scrubbed_icc(element.value))
        elif element.VR == "UI":
            removed.add_whole(str(element.value), name)
        elif element.VR not in NUMERIC:
            values = element.value if isinstance(element.value, MultiValue) else [element.value]
            for value in values:
                removed.add(str(value).replace("^", "|"), name)


def _verify(
    path: Path, data: FileDataset, target: Path, uids: dict[str, str], removed: RemovedText
) -> None:
    """Read a written file: only what is kept, every frame, and no text that was left out."""
    written = read_file(target)
    same = {new: new for new in uids.values()}
    same |= {f"{uids[old]} specimen": uids[f"{old} specimen"] for old in _specimens(uids)}
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, _copy(written, same, []), enforce_file_format=True)
    if stream.getvalue() != target.read_bytes():
        raise SlideError("the copy holds more than what should be kept", where=str(path))
    scrub = SCRUBS.get(data.file_meta.TransferSyntaxUID)
    frames = _frames(data)
    if scrub is not None:
        frames = [scrub(frame, None) for frame in frames]
    if frames != _frames(written):
        raise SlideError("the pixels of the copy differ", where=str(path))
    removed.check(path, target, _metadata(written))


def _specimens(uids: dict[str, str]) -> list[str]:
    return [name.removesuffix(" specimen") for name in uids if name.endswith(" specimen")]


def _metadata(written: FileDataset) -> bytes:
    """Return the bytes of a copy without pixels and measures, whose digits are many."""
    bare = _without_measures(written)
    bare.file_meta = written.file_meta
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, bare, enforce_file_format=True)
    return stream.getvalue()


def _without_measures(data: Dataset) -> Dataset:
    bare = Dataset()
    for element in data:
        if element.VR == "SQ":
            items = Sequence([_without_measures(one) for one in element.value])
            setattr(bare, element.keyword, items)
        elif element.VR not in {"DS", "FD", "FL"} and element.keyword != "PixelData":
            bare.add(element)
    return bare
