"""DICOM slides with identities in every place that files have."""

import io
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage

__all__ = ["IDENTITIES", "TILE_PX", "write_dicom_slide"]

TILE_PX = 128
STUDY = "1.2.826.77001"
IDENTITIES = (
    *("MUELLERIN", "ANNELIESE", "PID4711-08", "19470203", "ACC20260815", "Nordklinikum"),
    *("DRHOUSEMAN", "Scanroom9", "COMMENTJPEG", "AFTERJPEG", "PREAMBLENAME", "PRIVATENAME"),
    *("AETITLEX", "SPECIMENAB12", "BLOCKC3", "LABELTEXT", "STUDYNOTE", "NESTEDNAME", "20260815"),
    *(f"{STUDY}.1", f"{STUDY}.2", "CODEMEANINGNAME", "TRAILINGNAME"),
)


def write_dicom_slide(
    folder: Path,
    *,
    seed: int = 0,
    full: np.ndarray | None = None,
    mpp: float = 0.5,
    name: str = "MUELLERIN",
    series: str = f"{STUDY}.2",
) -> Path:
    """Write two levels, a thumbnail and a label; return the file of the first level.

    The sides of `full` are multiples of two tiles.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if full is None:
        rng = np.random.default_rng(seed)
        small = rng.integers(60, 240, (16, 16, 3), dtype=np.uint8)
        full = np.kron(small, np.ones((16, 16, 1), np.uint8))
    half = full[::2, ::2]
    kinds = (("VOLUME", full), ("VOLUME", half), ("THUMBNAIL", half), ("LABEL", half[:64, :64]))
    for number, (kind, pixels) in enumerate(kinds, start=1):
        last = "NONE" if number == 1 else "RESAMPLED"
        data = _instance(pixels, number, ["DERIVED", "PRIMARY", kind, last])
        data.SeriesInstanceUID = data.PyramidUID = series
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{series}.9.{number}"
        spacing = mpp / 1000 * full.shape[0] / pixels.shape[0]
        measures = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.PixelSpacing = [spacing, spacing]
        path = folder / f"{name}_{number}.dcm"
        pydicom.dcmwrite(path, data, enforce_file_format=True)
        content = bytearray(path.read_bytes())
        content[:12] = b"PREAMBLENAME"
        path.write_bytes(content)
    return folder / f"{name}_1.dcm"


def _instance(pixels: np.ndarray, number: int, image_type: list[str]) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.file_meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = f"{STUDY}.9.{number}"
    data.file_meta.SourceApplicationEntityTitle = "AETITLEX"
    data.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    data.SOPInstanceUID = f"{STUDY}.9.{number}"
    data.StudyInstanceUID, data.SeriesInstanceUID = f"{STUDY}.1", f"{STUDY}.2"
    data.FrameOfReferenceUID, data.PyramidUID = f"{STUDY}.3", f"{STUDY}.4"
    data.Modality, data.ImageType, data.InstanceNumber = "SM", image_type, number
    data.PatientName, data.PatientID = "MUELLERIN^ANNELIESE", "PID4711-08"
    data.PatientBirthDate, data.AccessionNumber = "19470203", "ACC20260815"
    data.InstitutionName, data.ReferringPhysicianName = "Nordklinikum", "DRHOUSEMAN"
    data.StationName, data.StudyDescription = "Scanroom9", "STUDYNOTE of ANNELIESE"
    data.StudyDate = data.ContentDate = "20260815"
    data.StudyTime = data.ContentTime = "101112"
    data.ContainerIdentifier, data.LabelText = "SPECIMENAB12", "LABELTEXT"
    data.ImageComments = "MUELLERIN, block BLOCKC3"
    specimen = Dataset()
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "SPECIMENAB12", f"{STUDY}.5"
    specimen.SpecimenShortDescription = "BLOCKC3"
    data.SpecimenDescriptionSequence = Sequence([specimen])
    block = data.private_block(0x0099, "PRIVATENAME", create=True)
    block.add_new(1, "LO", "PRIVATENAME")
    data.Rows = data.Columns = min(TILE_PX, pixels.shape[0])
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = pixels.shape[:2]
    data.SamplesPerPixel, data.PlanarConfiguration, data.PixelRepresentation = 3, 0, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PhotometricInterpretation = "YBR_FULL_422"
    data.DimensionOrganizationType = "TILED_FULL"
    data.LossyImageCompression, data.BurnedInAnnotation = "01", "NO"
    data.VolumetricProperties, data.SpecimenLabelInImage = "VOLUME", "NO"
    measures = Dataset()
    measures.SliceThickness = 0.001
    measures.add_new(0x00081030, "LO", "NESTEDNAME")
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    light = Dataset()
    light.CodeValue, light.CodingSchemeDesignator = "111744", "DCM"
    light.CodeMeaning = "CODEMEANINGNAME"
    path = Dataset()
    path.OpticalPathIdentifier, path.OpticalPathDescription = "1", "NESTEDNAME"
    path.IlluminationTypeCodeSequence = Sequence([light])
    data.OpticalPathSequence = Sequence([path])
    _add_pixels(data, pixels)
    return data


def _add_pixels(data: Dataset, pixels: np.ndarray) -> None:
    step = data.Rows
    tiles = [
        _jpeg(pixels[y : y + step, x : x + step])
        for y in range(0, pixels.shape[0], step)
        for x in range(0, pixels.shape[1], step)
    ]
    data.NumberOfFrames = len(tiles)
    data.PixelData = encapsulate(tiles)
    data["PixelData"].VR = "OB"
    data.DataSetTrailingPadding = b"TRAILINGNAME"


def _jpeg(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90, comment=b"COMMENTJPEG")
    return stream.getvalue() + b"AFTERJPEG."
