"""A case as DICOM SR, TID 1500.

Warnings are texts at the level of the document, before its measurement groups. The document is
neither complete nor verified: a person makes it so.
"""

import datetime as dt
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
from glomerulab.reports.case.sr_groups import case_groups, image_groups, text
from glomerulab.reports.case.text import RESEARCH_USE, SYNTHETIC
from glomerulab.reports.case.warnings import case_warnings
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.names import clean_id, clean_text
from glomerulab.slides.dicom_codes import own, uid

MAX_ID = 64


def case_sr(case: Case) -> ComprehensiveSR:
    """Return a case as a Comprehensive SR document.

    The UID of its study follows from model, time and patient. That of the document follows from
    its content, since an archive would ignore a changed document under a known UID.
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
    report[0].ContentSequence.append(_warnings(case))
    content = report[0].to_json()
    document = ComprehensiveSR(
        evidence=[_identity(case), *_slide_levels(case)],
        content=report[0],
        series_instance_uid=uid(case.key, "series"),
        series_number=1,
        sop_instance_uid=uid(case.key, "document", case.last_modified.isoformat(), content),
        instance_number=1,
        manufacturer="glomerulab (research use only)",
        is_complete=False,
        is_final=False,
        is_verified=False,
        specific_character_set="ISO_IR 192",
    )
    # It refers to the placeholder of `_identity`, which does not exist as an instance.
    del document.CurrentRequestedProcedureEvidenceSequence
    _set_time(document, case.last_modified)
    return document


def write_case_sr(case: Case, path: Path) -> None:
    """Write the document."""
    document = case_sr(case)
    with atomic_write(path) as temporary:
        document.save_as(temporary)


def _set_time(document: ComprehensiveSR, when: dt.datetime) -> None:
    """Replace the time of writing, so that the same content under one UID has the same bytes."""
    document.TimezoneOffsetFromUTC = "+0000"
    for name in ("Content", "InstanceCreation"):
        setattr(document, f"{name}Date", when.strftime("%Y%m%d"))
        setattr(document, f"{name}Time", when.strftime("%H%M%S"))
    for equipment in document.get("ContributingEquipmentSequence", []):  # set by highdicom
        equipment.ContributionDateTime = when.strftime("%Y%m%d%H%M%S")


def _warnings(case: Case) -> ContainerContentItem:
    """Return the warnings of the document (TID 1500 rows 12 and 14)."""
    items = [text("use", "Intended use", RESEARCH_USE)]
    if case.facts.is_synthetic:
        items.append(text("synthetic", "Synthetic data", SYNTHETIC))
    items += [
        text("read_first", "To be read before the numbers", one.sentence)
        for one in case_warnings(case, "en", max_listed=None)
    ]
    items += [text("in_no_count", "Not counted, not evaluated", name) for name in case.failures]
    items += [
        text("few", "Too few glomeruli", f"{result.rule_set.name}: {result.too_few}")
        for result in case.summary.rules
        if result.too_few
    ]
    container = ContainerContentItem(
        CodedConcept("C0034375", "UMLS", "Qualitative Evaluations"),
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    container.ContentSequence = ContentSequence(items)
    return container


def _slide_levels(case: Case) -> list[Dataset]:
    """Return every level of the DICOM slides as evidence for highdicom."""
    return [
        _dataset(
            StudyInstanceUID=slide.dicom.study_uid,
            SeriesInstanceUID=slide.dicom.series_uid,
            SOPClassUID=sop_class,
            SOPInstanceUID=sop_instance,
        )
        for slide in case.slides
        if slide.dicom is not None
        for sop_class, sop_instance in slide.dicom.instances
    ]


def _identity(case: Case) -> Dataset:
    """Return patient and study as evidence for highdicom, which copies them."""
    when = (parse_time(case.facts.created) or case.last_modified).astimezone(dt.UTC)
    return _dataset(
        PatientID=clean_id(case.patient, most=MAX_ID, without="\\"),
        PatientName="",
        PatientBirthDate="",
        PatientSex="",
        AccessionNumber="",
        StudyID="",
        StudyInstanceUID=uid(case.key, "study"),
        StudyDate=when.strftime("%Y%m%d"),
        StudyTime=when.strftime("%H%M%S"),
        SeriesInstanceUID=uid(case.key, "slides"),
        SOPInstanceUID=uid(case.key, "slide"),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.6",
        Modality="SM",
    )


def _dataset(**fields: str) -> Dataset:
    dataset = Dataset()
    for name, value in fields.items():
        setattr(dataset, name, value)
    return dataset
