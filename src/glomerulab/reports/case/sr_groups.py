"""Measurement groups of a case's DICOM SR: its counts, each item of the rules, and each image.

DICOM registers no scheme for HPO, so its codes carry the designator ``99HPO`` with the full
meaning. Our own codes are readable; those of more than 16 characters become Long Code Values.
"""

from highdicom.sr import (
    CodedConcept,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.sr.codedict import codes

from glomerulab.cases.calls import GlomerulusCall, LabelSet
from glomerulab.cases.case import Case
from glomerulab.cases.corrections import NOT_A_GLOMERULUS, call_text
from glomerulab.cases.counting import Glomerulus
from glomerulab.cases.grading import ItemResult, LabelCount, RuleResult
from glomerulab.cases.rules import Grade, RuleSet
from glomerulab.cases.structures import Measured
from glomerulab.reports.case.text import call_name, grade_name, labels_name
from glomerulab.runtime.names import clean_text
from glomerulab.slides.dicom_codes import code_meaning, own, uid
from glomerulab.taxonomy import Label, Taxonomy

HPO = "99HPO"

Group = MeasurementsAndQualitativeEvaluations


def case_groups(case: Case) -> list[Group]:
    """Return the counts, then each item of each rule set, graded or not."""
    found = [_counts(case)]
    for result, by_model in zip(case.summary.rules, case.model_summary.rules, strict=True):
        for item, model_item in zip(result.items, by_model.items, strict=True):
            found.append(_item(case, result, item, model_item.grade))
    return found


def _counts(case: Case) -> Group:
    summary, by_model = case.summary, case.model_summary
    low, high = summary.n_range
    counts = [
        number("n_glomeruli", "Glomeruli in all", summary.n_glomeruli),
        number("n_least", "Fewest glomeruli, given the uncertain ones", low),
        number("n_most", "Most glomeruli, given the uncertain ones", high),
        number("n_by_model", "Glomeruli in all, by the model alone", by_model.n_glomeruli),
        number(
            "n_several",
            "Glomeruli on several sections, each counted once",
            summary.n_on_several_sections,
        ),
        number("n_images", "Images", summary.n_images),
    ]
    if summary.n_not_assessed:
        name = "Not assessed as glomeruli, not counted"
        counts.append(number("n_not_assessed", name, summary.n_not_assessed))
    for one, model_count in zip(summary.labels, by_model.labels, strict=True):
        counts += _label_counts(one, model_count.n_with)
    group = Group(
        tracking_identifier=TrackingIdentifier(
            uid=uid(case.key, "case"), identifier=clean_text(f"case {case.patient}")
        ),
        finding_type=own("case", "All glomeruli of the case"),
        measurements=counts,
    )
    if not summary.n_glomeruli:
        missing = text("no_share", "Shares and intervals", "None: there is no glomerulus to count.")
        group[0].ContentSequence.append(missing)
    return group


def _label_counts(one: LabelCount, by_model: int) -> list[Measurement]:
    key, name = one.label.id, one.label.name  # label ids have no slash, so the codes are unique
    found = [
        number(f"n/{key}", f"Number of: {name}", one.n_with),
        number(f"n/{key}/of", f"Glomeruli in the denominator of: {name}", one.n_of),
    ]
    if one.share is not None and one.interval is not None:
        low, high = one.interval
        found += [
            percent(f"share/{key}", f"Share of: {name}", one.share),
            percent(f"share/{key}/low", f"Share, low end (Wilson, 95 %), of: {name}", low),
            percent(f"share/{key}/high", f"Share, high end (Wilson, 95 %), of: {name}", high),
        ]
    return [
        *found,
        number(f"n/{key}/least", f"Fewest, given the uncertain ones, of: {name}", one.n_range[0]),
        number(f"n/{key}/most", f"Most, given the uncertain ones, of: {name}", one.n_range[1]),
        number(f"n/{key}/by_model", f"Number by the model alone of: {name}", by_model),
    ]


def _item(case: Case, result: RuleResult, item: ItemResult, by_model: Grade | None) -> Group:
    """Return the group of one item; every item has the same concept names."""
    rules = result.rule_set
    name = f"{rules.name} {rules.version}: {item.item.name}"
    code = rules.code(item.item)
    group = Group(
        tracking_identifier=TrackingIdentifier(
            uid=uid(case.key, "question", code),
            identifier=clean_text(f"case {case.patient}, {name}"),
        ),
        finding_type=own(code, name),
        measurements=_item_counts(item),
        qualitative_evaluations=_grades(case, rules, item, by_model),
    )
    for one in _item_texts(result, item):
        group[0].ContentSequence.append(one)
    return group


def _item_counts(item: ItemResult) -> list[Measurement]:
    if item.grade is None:
        return []
    if item.measured is not None:
        return _measured(item.measured)
    found = [number(one.code, one.name, one.n_with) for one in item.counts]
    return [*found, number("n_of", "Glomeruli in the denominator", item.n_of)]


def _measured(one: Measured) -> list[Measurement]:
    if one.value is None:
        return []
    make = percent if one.unit == "share" else number
    ends = zip(("low", "likely", "high"), one.value, strict=True)
    return [
        make(f"structures/{one.key}/{end}", f"{end.capitalize()}: {one.name('en')}", value)
        for end, value in ends
    ]


def _grades(
    case: Case, rules: RuleSet, item: ItemResult, by_model: Grade | None
) -> list[QualitativeEvaluation]:
    def evaluation(code: str, meaning: str, grade: Grade) -> QualitativeEvaluation:
        value = own(rules.code(item.item, grade), grade_name(grade, "en"))
        return QualitativeEvaluation(own(code, meaning), value)

    if item.grade is None:
        absent = own("not_assessed", "Not assessed")
        found = [QualitativeEvaluation(own("grade", "Grade"), absent)]
    else:
        found = [evaluation("grade", "Grade", item.grade)]
    found += [
        evaluation("possible", "Other possible grade", one)
        for one in item.possible
        if one != item.grade
    ]
    if by_model is not None:
        found.append(evaluation("grade_by_model", "Grade by the model alone", by_model))
    return found + [
        QualitativeEvaluation(own("rests_on", "Based on the label"), label_code(label))
        for label in case.taxonomy.labels
        if label.id in item.labels
    ]


def _item_texts(result: RuleResult, item: ItemResult) -> list[TextContentItem]:
    rules = result.rule_set
    found = [
        text("question", "Question", f"{rules.name} {rules.version}: {item.item.name}"),
        text("source", "Source of the rules", rules.source),
    ]
    if item.grade is None:
        reason = "" if item.not_assessed is None else item.not_assessed["en"]
        found.append(text("why_not", "Not assessed, because", reason))
    elif result.too_few:
        found.append(text("few", "Too few glomeruli", result.too_few))
    if rules.note:
        found.append(text("note", "Note of the rules", rules.note))
    return found + [
        text("caveat", "A pathologist's grade may differ", warning["en"])
        for warning in item.warnings
    ]


def image_groups(case: Case) -> list[Group]:
    """Return a group for each image, in the order of the calls."""
    return [_image(case, call) for call in case.calls]


def _image(case: Case, call: GlomerulusCall) -> Group:
    is_glomerulus = case.labels_of(call) is not None
    group = Group(
        tracking_identifier=_tracking(case, call),
        finding_type=own("image", "Image of a glomerulus")
        if is_glomerulus
        else _no_glomerulus(case.taxonomy),
        measurements=_probabilities(case, call),
        qualitative_evaluations=_image_evaluations(case, call),
        source_images=_source_images(case, call),
    )
    for one in _image_texts(case, call):
        group[0].ContentSequence.append(one)
    return group


def _not_assessed(taxonomy: Taxonomy) -> CodedConcept:
    return own(call_text(None), call_name(None, taxonomy, "en"))


def _no_glomerulus(taxonomy: Taxonomy) -> CodedConcept:
    return own(NOT_A_GLOMERULUS, labels_name(None, taxonomy, "en"))


def _tracking(case: Case, call: GlomerulusCall) -> TrackingIdentifier:
    """Track all images of a glomerulus as one, and an image without a glomerulus by itself."""
    if case.labels_of(call) is None:
        what = "not assessed" if case.is_not_assessed(call) else "no glomerulus"
        name, key = f"{what}: {call.image_id}", call.image_id
        return TrackingIdentifier(uid(case.key, "no glomerulus", key), clean_text(name))
    first = case.glomerulus_of(call).calls[0]
    name = (
        f"glomerulus {case.glomerulus_numbers[call.image_id]}: {first.region_id or first.image_id}"
    )
    return TrackingIdentifier(uid(case.key, "glomerulus", first.image_id), clean_text(name))


def _image_evaluations(case: Case, call: GlomerulusCall) -> list[QualitativeEvaluation]:
    """Return the labels of the image, and separately those its glomerulus is counted as."""
    labels = case.labels_of(call)
    shows = own("shows", "Shown by this image")
    if case.is_not_assessed(call):
        found = [QualitativeEvaluation(shows, _not_assessed(case.taxonomy))]
    else:
        found = label_evaluations(shows, labels, case.taxonomy)
    if call.image_id in case.latest_corrections:
        name = own("model", "Called by the model")
        if call.called is None:
            found.append(QualitativeEvaluation(name, _not_assessed(case.taxonomy)))
        else:
            found += label_evaluations(name, call.called, case.taxonomy)
    if labels is not None:
        glomerulus = case.glomerulus_of(call)
        name = own("counted_as", "Glomerulus counted as")
        found += label_evaluations(name, glomerulus.labels, case.taxonomy)
        name = own("left_open", "Uncertain labels of the glomerulus")
        found += [QualitativeEvaluation(name, value) for value in _uncertain(case, glomerulus)]
    found += [
        QualitativeEvaluation(own("refer", "Needs review"), own(reason, reason))
        for reason in case.review_reasons_of(call)
    ]
    if call.is_proposed:
        value = own("proposed", "Proposed by a detector, drawn by no person")
        found.append(QualitativeEvaluation(own("region", "Region"), value))
    return found


def _uncertain(case: Case, glomerulus: Glomerulus) -> list[CodedConcept]:
    """Return the labels that only some possible label sets contain."""
    found = [
        label_code(label)
        for label in case.taxonomy.labels
        if len(glomerulus.possible_values(label.id)) > 1
    ]
    if glomerulus.may_be_no_glomerulus and not glomerulus.is_no_glomerulus:
        found.append(_no_glomerulus(case.taxonomy))
    return found


def _probabilities(case: Case, call: GlomerulusCall) -> list[Measurement]:
    return [
        number(
            f"p/{label.id}", f"Probability of: {label.name}", round(call.probabilities[label.id], 6)
        )
        for label in case.taxonomy.labels
    ]


def _image_texts(case: Case, call: GlomerulusCall) -> list[TextContentItem]:
    """Return image, slide and correction as texts, which unlike meanings of codes have no limit."""
    found = [text("image_id", "Image", call.image_id)]
    if call.slide_id:
        found.append(text("slide_id", "Slide", call.slide_id))
    others = case.other_slides_of(call)
    if others and case.labels_of(call) is not None:
        n = case.glomerulus_numbers[call.image_id]
        same = f"glomerulus {n}, also on {', '.join(others)}, counted once"
        found.append(text("same", "Other images of the glomerulus", same))
    entry = case.latest_corrections.get(call.image_id)
    if entry is not None:
        action = "confirmed" if call.image_id in case.confirmed_images else "changed"
        correction = f"{entry.by}, {entry.time}: {entry.reason}"
        found.append(text(action, f"{action.capitalize()} by a person", correction))
    return found


def _source_images(case: Case, call: GlomerulusCall) -> list[SourceImageForMeasurementGroup] | None:
    """Refer to the largest level of a DICOM slide."""
    for slide in case.slides:
        if slide.slide_id == call.slide_id and slide.dicom is not None:
            return [SourceImageForMeasurementGroup(*slide.dicom.instances[0])]
    return None


def label_code(label: Label) -> CodedConcept:
    """Return the HPO code of a label, or one of our own if it has none."""
    if label.hpo:
        return CodedConcept(label.hpo, HPO, code_meaning(label.name))
    return own(f"is/{label.id}", label.name)


def label_evaluations(
    name: CodedConcept, labels: LabelSet, taxonomy: Taxonomy
) -> list[QualitativeEvaluation]:
    """Return one evaluation per label, or one that there is none."""
    values = [label_code(label) for label in taxonomy.labels if labels and label.id in labels]
    if not values:
        code = NOT_A_GLOMERULUS if labels is None else "none"
        values = [own(code, labels_name(labels, taxonomy, "en"))]
    return [QualitativeEvaluation(name, value) for value in values]


def number(code: str, meaning: str, value: float) -> Measurement:
    """Return a measurement without unit."""
    return Measurement(own(code, meaning), value, codes.UCUM.NoUnits)


def percent(code: str, meaning: str, share: float) -> Measurement:
    """Return a share from 0 to 1 as a measurement in percent."""
    return Measurement(own(code, meaning), round(100 * share, 2), codes.UCUM.Percent)


def text(code: str, meaning: str, value: str) -> TextContentItem:
    """Return a text of any length."""
    return TextContentItem(own(code, meaning), clean_text(value), RelationshipTypeValues.CONTAINS)
