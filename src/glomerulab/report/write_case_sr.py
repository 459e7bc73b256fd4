"""A case as DICOM SR, TID 1500: one measurement group for the case, one for each glomerulus.

What a reader must know before the numbers stands as text at the level of the document.

HPO is no scheme that DICOM registers, so its codes carry the designator ``99HPO`` with the full
meaning. The document is neither complete nor verified: a person makes it so.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping
from pathlib import Path

import highdicom as hd
from highdicom.sr import (
    CodedConcept,
    ComprehensiveSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

from glomerulab.calls import GlomerulusCall, Reading
from glomerulab.files import written_whole
from glomerulab.report.case_warnings import case_warnings
from glomerulab.report.overrides import NOT_A_GLOMERULUS
from glomerulab.report.reported_case import ReportedCase
from glomerulab.report.words import reading_words, words
from glomerulab.taxonomy import Label

__all__ = ["case_sr", "write_case_sr"]

OWN = "99GLOMERULAB"
HPO = "99HPO"
MAX_CODE = 16
MAX_MEANING = 64


def case_sr(case: ReportedCase) -> ComprehensiveSR:
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
        uid=_uid(case.facts.model.weights_sha256),
        name="glomerulab",
        manufacturer_name="glomerulab (research use only)",
        model_name=case.facts.model.model,
    )
    context = ObservationContext(
        observer_device_context=ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )
    report = MeasurementReport(
        observation_context=context,
        procedure_reported=_own("counting", "Glomeruli counted by a program, research use only"),
        imaging_measurements=[_case_group(case), *(_group(case, call) for call in case.calls)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    report[0].ContentSequence.append(_told(case))
    document = ComprehensiveSR(
        evidence=[_identity(case), *_slides(case)],
        content=report[0],
        series_instance_uid=_uid(case.mark, "series"),
        series_number=1,
        sop_instance_uid=_uid(case.mark, "document", report[0].to_json()),
        instance_number=1,
        manufacturer="glomerulab (research use only)",
        is_complete=False,
        is_final=False,
        is_verified=False,
        specific_character_set="ISO_IR 192",
    )
    # It holds what `_identity` had to call an image: nothing that does not exist is named.
    del document.CurrentRequestedProcedureEvidenceSequence
    return document


def write_case_sr(case: ReportedCase, path: Path) -> None:
    """Write the document, whole or not at all.

    Parameters
    ----------
    case : ReportedCase
    path : Path
        Replaced if it exists.
    """
    document = case_sr(case)
    with written_whole(path) as temporary:
        document.save_as(temporary)


def _told(case: ReportedCase) -> ContainerContentItem:
    """Say of the whole document what a reader must know (TID 1500 rows 12 and 14)."""
    lines = [(_own("use", "Intended use"), words("en")["research_only"])]
    if case.facts.is_synthetic:
        lines.append((_own("synthetic", "Synthetic data"), words("en")["synthetic"]))
    lines += [
        (_own("read_first", "To be read before the numbers"), one.sentence)
        for one in case_warnings(case, "en")
    ]
    lines += [(_own("in_no_count", "In no count, not judged"), name) for name in case.unjudged]
    lines += [
        (_own("too_few", "Too few glomeruli"), f"{result.rule_set.name}: {result.too_few}")
        for result in case.summary.rules
        if result.too_few
    ]
    container = ContainerContentItem(
        CodedConcept("C0034375", "UMLS", "Qualitative Evaluations"),
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    container.ContentSequence = ContentSequence([_text(*line) for line in lines])
    return container


def _text(name: CodedConcept, value: str) -> TextContentItem:
    return TextContentItem(name, value, RelationshipTypeValues.CONTAINS)


def _case_group(case: ReportedCase) -> MeasurementsAndQualitativeEvaluations:
    """Put the counts and grades of the whole case into one group."""
    counts = [
        Measurement(name=_label_code(one.label, "n"), value=one.n_with, unit=codes.UCUM.NoUnits)
        for one in case.summary.labels
    ]
    counts.insert(
        0,
        Measurement(
            name=_own("n_glomeruli", "Glomeruli in all"),
            value=case.summary.n_glomeruli,
            unit=codes.UCUM.NoUnits,
        ),
    )
    grades = [
        QualitativeEvaluation(
            name=_own(f"{result.rule_set.id}_{item.item.id}",
                      f"{result.rule_set.name} {result.rule_set.version}: {item.item.name}"),
            value=_grade_code(
                item.grade.grade if item.grade else "not assessed",
                [grade.grade for grade in item.possible],
            ),
        )
        for result in case.summary.rules
        for item in result.items
        if item.grade is not None or item.possible
    ]  # fmt: skip
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=_uid(case.mark, "case"), identifier=f"case {case.patient}"
        ),
        finding_type=_own("case", "All glomeruli of the case"),
        measurements=counts,
        qualitative_evaluations=grades,
    )


def _group(case: ReportedCase, call: GlomerulusCall) -> MeasurementsAndQualitativeEvaluations:
    labels = {label.id: label for label in case.taxonomy.labels}
    reading, entry = case.reading_of(call), case.overruled.get(call.image_id)
    whole = case.glomerulus_of(call)
    evaluations = _readings(_own("shows", "Shown by this image"), reading, case)
    evaluations += _readings(_own("counted_as", "Glomerulus counted as"), whole.called, case)
    if entry is not None:
        evaluations += _readings(_own("model", "Called by the model"), call.called, case)
    evaluations += [
        QualitativeEvaluation(_own("refer", "Refer to a human"), _own(reason, reason))
        for reason in case.reasons_of(call)
    ]
    if call.is_proposed:
        value = _own("proposed", "Proposed by a detector, drawn by no person")
        evaluations.append(QualitativeEvaluation(_own("region", "Region"), value))
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=_uid(case.mark, call.image_id), identifier=call.region_id or call.image_id
        ),
        finding_type=_own("glomerulus", "Glomerulus"),
        measurements=[
            Measurement(
                name=_label_code(labels[key], "p"), value=round(chance, 6), unit=codes.UCUM.NoUnits
            )
            for key, chance in call.probabilities.items()
        ],
        qualitative_evaluations=evaluations,
        source_images=_source_images(case, call),
    )
    if others := case.also_on(call):
        number = case.glomerulus_numbers[call.image_id]
        said = f"glomerulus {number}, also on {', '.join(others)}, counted once"
        group[0].ContentSequence.append(_text(_own("same", "Other images of the glomerulus"), said))
    if entry is not None:  # as text, since a code's meaning would cut the reason short
        said = f"{entry.by}, {entry.time}: {entry.reason}"
        done = "confirmed" if call.image_id in case.confirmed else "changed"
        name = _own(done, f"{done.capitalize()} by a person")
        group[0].ContentSequence.append(_text(name, said))
    return group


def _source_images(
    case: ReportedCase, call: GlomerulusCall
) -> list[SourceImageForMeasurementGroup] | None:
    """Refer to the largest level of the slide, where that is DICOM."""
    for slide in case.slides:
        if slide.slide_id == call.slide_id and slide.dicom is not None:
            return [SourceImageForMeasurementGroup(*slide.dicom.instances[0])]
    return None


def _slides(case: ReportedCase) -> list[Dataset]:
    """Name every level of the slides that are DICOM, in the shape in which highdicom takes it."""
    found = []
    for reference in (slide.dicom for slide in case.slides if slide.dicom is not None):
        for sop_class, sop_instance in reference.instances:
            level = Dataset()
            level.StudyInstanceUID, level.SeriesInstanceUID = (
                reference.study_uid, reference.series_uid,
            )  # fmt: skip
            level.SOPClassUID, level.SOPInstanceUID = sop_class, sop_instance
            found.append(level)
    return found


def _grade_code(grade: str, possible: list[str]) -> CodedConcept:
    """Code a grade together with what the doubts allow: one code has one meaning."""
    others = [one for one in possible if one != grade]
    text = f"{grade} (doubts allow {', '.join(others)})" if others else grade
    return _own(text, text)


def _readings(
    name: CodedConcept, reading: Reading, case: ReportedCase
) -> list[QualitativeEvaluation]:
    """Say what a glomerulus shows: one evaluation per label, coded by HPO where it has a code."""
    shown = [label for label in case.taxonomy.labels if reading and label.id in reading]
    values = [
        CodedConcept(label.hpo, HPO, label.name[:MAX_MEANING])
        if label.hpo
        else _own(f"is_{label.id}", label.name)
        for label in shown
    ]
    if not values:
        code = NOT_A_GLOMERULUS if reading is None else "none"
        values = [_own(code, reading_words(reading, case.taxonomy, "en"))]
    return [QualitativeEvaluation(name, value) for value in values]


def _label_code(label: Label, kind: str) -> CodedConcept:
    what = "Number of" if kind == "n" else "Probability of"
    return _own(f"{kind}_{label.id}", f"{what}: {label.name}")


def _own(code: str, meaning: str) -> CodedConcept:
    """Make a code of our own, cut to the lengths that DICOM allows."""
    if len(code) > MAX_CODE:
        code = code[: MAX_CODE - 7] + hashlib.sha256(code.encode()).hexdigest()[:6]
    return CodedConcept(code, OWN, meaning[:MAX_MEANING])


def _identity(case: ReportedCase) -> Dataset:
    """Whose document it is, in the shape in which highdicom takes it over."""
    when = dt.datetime.fromisoformat(case.facts.created)
    fields: Mapping[str, object] = {
        "PatientID": case.patient[:64],
        "PatientName": "",
        "PatientBirthDate": "",
        "PatientSex": "",
        "AccessionNumber": "",
        "StudyID": "",
        "StudyInstanceUID": _uid(case.mark, "study"),
        "StudyDate": when.strftime("%Y%m%d"),
        "StudyTime": when.strftime("%H%M%S"),
        "SeriesInstanceUID": _uid(case.mark, "slides"),
        "SOPInstanceUID": _uid(case.mark, "slide"),
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6",
        "Modality": "SM",
    }
    identity = Dataset()
    for name, value in fields.items():
        setattr(identity, name, value)
    return identity


def _uid(*parts: str) -> hd.UID:
    number = int.from_bytes(hashlib.sha256("/".join(parts).encode()).digest()[:16], "big")
    return hd.UID(f"2.25.{number}")
