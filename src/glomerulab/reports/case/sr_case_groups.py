"""What a case adds up to as measurement groups of its SR: the counts, and each question."""

from highdicom.sr import (
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    TextContentItem,
    TrackingIdentifier,
)

from glomerulab.cases.case import Case
from glomerulab.cases.grading import ItemResult, RuleResult
from glomerulab.cases.rule_codes import counted_code, counted_name, grade_code, question_code
from glomerulab.cases.rules import Grade, RuleSet
from glomerulab.cases.summary import LabelCount
from glomerulab.reports.case.sr_items import label_code, number, own, percent, text, uid
from glomerulab.reports.case.words import grade_name
from glomerulab.runtime.names import clean_text

__all__ = ["case_groups"]


def case_groups(case: Case) -> list[MeasurementsAndQualitativeEvaluations]:
    """Return the groups of the whole case.

    Parameters
    ----------
    case : ReportedCase

    Returns
    -------
    list of MeasurementsAndQualitativeEvaluations
        The counts, then each question of each rule set, answered or not.
    """
    found = [_counts(case)]
    for result, original in zip(case.summary.rules, case.original.rules, strict=True):
        for item, alone in zip(result.items, original.items, strict=True):
            found.append(_question(case, result, item, alone.grade))
    return found


def _counts(case: Case) -> MeasurementsAndQualitativeEvaluations:
    summary, original = case.summary, case.original
    low, high = summary.n_range
    counts = [
        number("n_glomeruli", "Glomeruli in all", summary.n_glomeruli),
        number("n_least", "Fewest glomeruli that the doubts allow", low),
        number("n_most", "Most glomeruli that the doubts allow", high),
        number("n_by_model", "Glomeruli in all, by the model alone", original.n_glomeruli),
        number(
            "n_several",
            "Glomeruli on several sections, each counted once",
            summary.n_on_several_sections,
        ),
        number("n_images", "Images", summary.n_images),
    ]
    for one, alone in zip(summary.labels, original.labels, strict=True):
        counts += _label(one, alone.n_with)
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=uid(case.mark, "case"), identifier=clean_text(f"case {case.patient}")
        ),
        finding_type=own("case", "All glomeruli of the case"),
        measurements=counts,
    )
    if not summary.n_glomeruli:
        said = text("no_share", "Shares and intervals", "None: there is no glomerulus to count.")
        group[0].ContentSequence.append(said)
    return group


def _label(one: LabelCount, by_model: int) -> list[Measurement]:
    key, name = one.label.id, one.label.name  # no id has a slash: no code is another one's
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
        number(f"n/{key}/least", f"Fewest that the doubts allow of: {name}", one.n_range[0]),
        number(f"n/{key}/most", f"Most that the doubts allow of: {name}", one.n_range[1]),
        number(f"n/{key}/by_model", f"Number by the model alone of: {name}", by_model),
    ]


def _question(
    case: Case, result: RuleResult, item: ItemResult, alone: Grade | None
) -> MeasurementsAndQualitativeEvaluations:
    """Put one question into a group: the same names serve every question."""
    rules = result.rule_set
    name = f"{rules.name} {rules.version}: {item.item.name}"
    code = question_code(rules, item.item)
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=uid(case.mark, "question", code),
            identifier=clean_text(f"case {case.patient}, {name}"),
        ),
        finding_type=own(code, name),
        measurements=_numbers(item),
        qualitative_evaluations=_grades(case, rules, item, alone),
    )
    for one in _texts(result, item):
        group[0].ContentSequence.append(one)
    return group


def _numbers(item: ItemResult) -> list[Measurement]:
    if item.grade is None:
        return []
    found = [number(counted_code(one), counted_name(one), one.n_with) for one in item.counted]
    return [*found, number("n_of", "Glomeruli in the denominator", item.n_of)]


def _grades(
    case: Case, rules: RuleSet, item: ItemResult, alone: Grade | None
) -> list[QualitativeEvaluation]:
    def evaluation(code: str, meaning: str, grade: Grade) -> QualitativeEvaluation:
        value = own(grade_code(rules, item.item, grade), grade_name(grade, "en"))
        return QualitativeEvaluation(own(code, meaning), value)

    if item.grade is None:
        absent = own("not_assessed", "Not assessed")
        found = [QualitativeEvaluation(own("grade", "Grade"), absent)]
    else:
        found = [evaluation("grade", "Grade", item.grade)]
    found += [
        evaluation("possible", "Grade that the doubts allow too", one)
        for one in item.possible
        if one != item.grade
    ]
    if alone is not None:
        found.append(evaluation("grade_by_model", "Grade by the model alone", alone))
    return found + [
        QualitativeEvaluation(own("rests_on", "Rests on the label"), label_code(label))
        for label in case.taxonomy.labels
        if label.id in item.labels
    ]


def _texts(result: RuleResult, item: ItemResult) -> list[TextContentItem]:
    rules = result.rule_set
    found = [
        text("question", "Question", f"{rules.name} {rules.version}: {item.item.name}"),
        text("source", "Source of the rules", rules.source),
    ]
    if item.grade is None:
        found.append(text("why_not", "Not assessed, because", item.not_assessed))
    elif result.too_few:
        found.append(text("few", "Too few glomeruli", result.too_few))
    if rules.note:
        found.append(text("note", "Note of the rules", rules.note))
    found += [text("caveat", "A pathologist's answer may differ", said) for said in item.caveats]
    return found
