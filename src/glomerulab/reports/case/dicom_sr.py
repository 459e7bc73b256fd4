"""A case as DICOM SR, TID 1500: groups for its counts, for each question of the rules, each image.

What a reader must know before the numbers stands as text at the level of the document, which is
neither complete nor verified: a person makes it so.
"""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

from highdicom.sr import (
    CodedConcept,
    ComprehensiveSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

from glomerulab.cases.case import Case
from glomerulab.cases.corrections import parse_time
from glomerulab.reports.case.sr_case_groups import case_groups
from glomerulab.reports.case.sr_image_groups import image_groups
from glomerulab.reports.case.sr_items import own, text, uid
from glomerulab.reports.case.warnings import case_warnings
from glomerulab.reports.case.words import words
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.names import clean_id, clean_text

__all__ = ["case_sr", "write_case_sr"]

MAX_ID = 64


def case_sr(case: Case) -> ComprehensiveSR:
    """Return a case as a Comprehensive SR document.

    Parameters
    ----------
    case : ReportedCase

    Returns
    -------
    ComprehensiveSR
        Its study follows from model, time and patient. The document's own UID follows from its
        content too: an archive keeps what it has, and would drop a correction under an old UID.
    """
    device = DeviceObserverIdentifyingAttributes(
        uid=uid(case.facts.model.weights_sha256),
        name="glomerulab",
        manufacturer_name="glomerulab (research use only)",
        model_name=clean_text(case.facts.model.model),
    )
    context = ObservationContext(
        observer_device_context=ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )
    report = MeasurementReport(
        observation_context=context,
        procedure_reported=own("counting", "Glomeruli counted by a program, research use only"),
        imaging_measurements=[*case_groups(case), *image_groups(case)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    report[0].ContentSequence.append(_told(case))
    document = ComprehensiveSR(
        evidence=[_identity(case), *_slides(case)],
        content=report[0],
        series_instance_uid=uid(case.mark, "series"),
        series_number=1,
        sop_instance_uid=uid(
            case.mark, "document", case.last_modified.isoformat(), report[0].to_json()
        ),
        instance_number=1,
        manufacturer="glomerulab (research use only)",
        is_complete=False,
        is_final=False,
        is_verified=False,
        specific_character_set="ISO_IR 192",
    )
    # It holds what `_identity` had to call an image: nothing that does not exist is named.
    del document.CurrentRequestedProcedureEvidenceSequence
    _date(document, case.last_modified)
    return document


def write_case_sr(case: Case, path: Path) -> None:
    """Write the document, whole or not at all.

    Parameters
    ----------
    case : ReportedCase
    path : Path
        Replaced if it exists.
    """
    document = case_sr(case)
    with atomic_write(path) as temporary:
        document.save_as(temporary)


def _date(document: ComprehensiveSR, when: dt.datetime) -> None:
    """Give the time of what is told: the same document under one UID has the same bytes."""
    document.TimezoneOffsetFromUTC = "+0000"
    for name in ("Content", "InstanceCreation"):
        setattr(document, f"{name}Date", when.strftime("%Y%m%d"))
        setattr(document, f"{name}Time", when.strftime("%H%M%S"))
    for made in document.get("ContributingEquipmentSequence", []):  # highdicom names itself
        made.ContributionDateTime = when.strftime("%Y%m%d%H%M%S")


def _told(case: Case) -> ContainerContentItem:
    """Say of the whole document what a reader must know (TID 1500 rows 12 and 14)."""
    said = [text("use", "Intended use", words("en")["research_only"])]
    if case.facts.is_synthetic:
        said.append(text("synthetic", "Synthetic data", words("en")["synthetic"]))
    said += [
        text("read_first", "To be read before the numbers", one.sentence)
        for one in case_warnings(case, "en", max_listed=None)
    ]
    said += [text("in_no_count", "In no count, not judged", name) for name in case.failures]
    said += [
        text("few", "Too few glomeruli", f"{result.rule_set.name}: {result.too_few}")
        for result in case.summary.rules
        if result.too_few
    ]
    container = ContainerContentItem(
        CodedConcept("C0034375", "UMLS", "Qualitative Evaluations"),
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    container.ContentSequence = ContentSequence(said)
    return container


def _slides(case: Case) -> list[Dataset]:
    """Name every level of the slides that are DICOM, in the shape in which highdicom takes it."""
    found = []
    for reference in (slide.dicom for slide in case.slides if slide.dicom is not None):
        for sop_class, sop_instance in reference.instances:
            level = Dataset()
            level.StudyInstanceUID, level.SeriesInstanceUID = (
                reference.study_uid,
                reference.series_uid,
            )
            level.SOPClassUID, level.SOPInstanceUID = sop_class, sop_instance
            found.append(level)
    return found


def _identity(case: Case) -> Dataset:
    """Whose document it is, in the shape in which highdicom takes it over."""
    when = parse_time(case.facts.created) or case.last_modified
    fields: Mapping[str, object] = {
        "PatientID": clean_id(case.patient, most=MAX_ID, without="\\"),
        "PatientName": "",
        "PatientBirthDate": "",
        "PatientSex": "",
        "AccessionNumber": "",
        "StudyID": "",
        "StudyInstanceUID": uid(case.mark, "study"),
        "StudyDate": when.astimezone(dt.UTC).strftime("%Y%m%d"),
        "StudyTime": when.astimezone(dt.UTC).strftime("%H%M%S"),
        "SeriesInstanceUID": uid(case.mark, "slides"),
        "SOPInstanceUID": uid(case.mark, "slide"),
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6",
        "Modality": "SM",
    }
    identity = Dataset()
    for name, value in fields.items():
        setattr(identity, name, value)
    return identity
