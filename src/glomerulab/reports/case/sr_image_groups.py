"""The images of a case as measurement groups of its SR, those of one glomerulus tracked as one."""

from highdicom.sr import (
    CodedConcept,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)

from glomerulab.cases.calls import GlomerulusCall
from glomerulab.cases.case import Case
from glomerulab.cases.corrections import NOT_A_GLOMERULUS
from glomerulab.cases.counting import Glomerulus
from glomerulab.reports.case.sr_items import label_code, number, own, readings, text, uid
from glomerulab.reports.case.words import reading_words
from glomerulab.runtime.names import clean_text

__all__ = ["image_groups"]


def image_groups(case: Case) -> list[MeasurementsAndQualitativeEvaluations]:
    """Return a group for each image.

    Parameters
    ----------
    case : ReportedCase

    Returns
    -------
    list of MeasurementsAndQualitativeEvaluations
        In the order of the calls.
    """
    return [_group(case, call) for call in case.calls]


def _group(case: Case, call: GlomerulusCall) -> MeasurementsAndQualitativeEvaluations:
    is_none = case.reading_of(call) is None
    none = own(NOT_A_GLOMERULUS, reading_words(None, case.taxonomy, "en"))
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracked(case, call),
        finding_type=none if is_none else own("image", "Image of a glomerulus"),
        measurements=_probabilities(case, call),
        qualitative_evaluations=_evaluations(case, call),
        source_images=_source_images(case, call),
    )
    for one in _texts(case, call):
        group[0].ContentSequence.append(one)
    return group


def _tracked(case: Case, call: GlomerulusCall) -> TrackingIdentifier:
    """Track the glomerulus; what is none by itself."""
    if case.reading_of(call) is None:
        name, key = f"no glomerulus: {call.image_id}", call.image_id
        return TrackingIdentifier(uid(case.mark, "no glomerulus", key), clean_text(name))
    first = case.glomerulus_of(call).calls[0]
    name = (
        f"glomerulus {case.glomerulus_numbers[call.image_id]}: {first.region_id or first.image_id}"
    )
    return TrackingIdentifier(uid(case.mark, "glomerulus", first.image_id), clean_text(name))


def _evaluations(case: Case, call: GlomerulusCall) -> list[QualitativeEvaluation]:
    """Say what the image shows, and apart from it what the glomerulus is counted as."""
    reading = case.reading_of(call)
    found = readings(own("shows", "Shown by this image"), reading, case.taxonomy)
    if call.image_id in case.latest_corrections:
        found += readings(own("model", "Called by the model"), call.called, case.taxonomy)
    if reading is not None:
        glomerulus = case.glomerulus_of(call)
        name = own("counted_as", "Glomerulus counted as")
        found += readings(name, glomerulus.called, case.taxonomy)
        name = own("call_uncertainty", "Doubts leave open, of the whole glomerulus")
        found += [QualitativeEvaluation(name, value) for value in _left_open(case, glomerulus)]
    found += [
        QualitativeEvaluation(own("refer", "Refer to a human"), own(reason, reason))
        for reason in case.review_reasons_of(call)
    ]
    if call.is_proposed:
        value = own("proposed", "Proposed by a detector, drawn by no person")
        found.append(QualitativeEvaluation(own("region", "Region"), value))
    return found


def _left_open(case: Case, glomerulus: Glomerulus) -> list[CodedConcept]:
    """Name the labels that some possible readings hold and others do not."""
    labels = [label for label in case.taxonomy.labels if len(glomerulus.shows(label.id)) > 1]
    found = [label_code(label) for label in labels]
    if glomerulus.may_be_none and not glomerulus.must_be_none:
        found.append(own(NOT_A_GLOMERULUS, reading_words(None, case.taxonomy, "en")))
    return found


def _probabilities(case: Case, call: GlomerulusCall) -> list[Measurement]:
    return [
        number(
            f"p/{label.id}", f"Probability of: {label.name}", round(call.probabilities[label.id], 6)
        )
        for label in case.taxonomy.labels
    ]


def _texts(case: Case, call: GlomerulusCall) -> list[TextContentItem]:
    """Name image and slide, and who changed the call: a code's meaning would cut them short."""
    found = [text("image_id", "Image", call.image_id)]
    if call.slide_id:
        found.append(text("slide_id", "Slide", call.slide_id))
    others = case.other_slides_of(call)
    if others and case.reading_of(call) is not None:
        number_of = case.glomerulus_numbers[call.image_id]
        said = f"glomerulus {number_of}, also on {', '.join(others)}, counted once"
        found.append(text("same", "Other images of the glomerulus", said))
    entry = case.latest_corrections.get(call.image_id)
    if entry is not None:
        done = "confirmed" if call.image_id in case.confirmed else "changed"
        said = f"{entry.by}, {entry.time}: {entry.reason}"
        found.append(text(done, f"{done.capitalize()} by a person", said))
    return found


def _source_images(case: Case, call: GlomerulusCall) -> list[SourceImageForMeasurementGroup] | None:
    """Refer to the largest level of the slide, where that is DICOM."""
    for slide in case.slides:
        if slide.slide_id == call.slide_id and slide.dicom is not None:
            return [SourceImageForMeasurementGroup(*slide.dicom.instances[0])]
    return None
