"""Write the reports of the cases of a cohort, each into the folder of its case."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from glomerulab.cases.case_folder import read_case_folder
from glomerulab.cases.corrections import NOT_A_GLOMERULUS
from glomerulab.cases.rules import RuleSet
from glomerulab.cases.structures import read_case_structures
from glomerulab.errors import GlomerulabError
from glomerulab.i18n.catalogue import Language
from glomerulab.pipeline.cohort_folder import COHORT_FILE, CohortFolder
from glomerulab.reports.case.write import ReportFormat, write_case_reports
from glomerulab.reports.references import read_references
from glomerulab.runtime.parallel import Workers, map_outcomes
from glomerulab.runtime.progress import Track, silent

__all__ = ["CohortReports", "is_cohort", "report_cohort"]

REPORTS_FOLDER = "reports"


@dataclass(frozen=True, slots=True)
class CohortReports:
    """What was written."""

    n_cases: int
    n_files: int
    failures: tuple[tuple[str, str], ...]
    """Cases without a report, and why."""


def is_cohort(folder: Path) -> bool:
    """Whether `predict --cohort` wrote a folder."""
    return (folder / COHORT_FILE).is_file()


def report_cohort(
    folder: Path,
    *,
    formats: Sequence[ReportFormat],
    rule_sets: Sequence[RuleSet] | None = None,
    language: Language = "en",
    accept_edits: bool = False,
    structures: Path | None = None,
    references: Path | None = None,
    n_workers: int = 1,
    workers: Workers | None = None,
    track: Track = silent,
) -> CohortReports:
    """Write the reports of every case that is done to ``cases/<name>/reports``.

    Parameters
    ----------
    formats, rule_sets, language, accept_edits, structures, references
        As for `glomerulab.reports.case.write.write_case_reports`.
    n_workers : int, default 1
        Processes.
    workers : Workers, optional
        Of a cluster, which sees the same paths; in place of `n_workers` processes.

    Raises
    ------
    OutputError
        If the folder is that of no cohort.
    GlomerulabError
        If `structures` holds no outlines.
    ImageFileError
        If `references` holds no picture of a label, or one cannot be read.
    """
    cohort = CohortFolder(folder.absolute())
    states = cohort.states()
    cases = [
        (case, cohort.case_folder(name))
        for case, name in cohort.cases()[["case", "name"]].itertuples(index=False)
        if states.get(name) == "done"
    ]
    if structures is not None:
        read_case_structures(structures, ())
    if references is not None:
        _check_references(references, cases, accept_edits=accept_edits)
    write = partial(
        _write,
        formats=tuple(formats),
        rule_sets=rule_sets,
        language=language,
        accept_edits=accept_edits,
        structures=None if structures is None else structures.absolute(),
        references=None if references is None else references.absolute(),
    )
    n_files, failures = 0, {}
    with closing(map_outcomes(write, cases, n_workers=n_workers, workers=workers)) as outcomes:
        for one in track(outcomes, "Writing reports", len(cases)):
            if one.error is not None:
                failures[one.item[0]] = str(one.error)
            n_files += one.value or 0
    return CohortReports(len(cases) - len(failures), n_files, tuple(sorted(failures.items())))


def _check_references(
    references: Path, cases: Sequence[tuple[str, Path]], *, accept_edits: bool
) -> None:
    """Read the pictures once, for the labels of the first case that can be read."""
    for _, folder in cases:
        try:
            taxonomy = read_case_folder(folder, accept_edits=accept_edits).taxonomy
        except GlomerulabError:  # reported with the case
            continue
        read_references(references, (*taxonomy.label_ids, NOT_A_GLOMERULUS))
        return


def _write(
    case: tuple[str, Path],
    *,
    formats: Sequence[ReportFormat],
    rule_sets: Sequence[RuleSet] | None,
    language: Language,
    accept_edits: bool,
    structures: Path | None,
    references: Path | None,
) -> int:
    folder = case[1]
    written = write_case_reports(
        folder,
        folder / REPORTS_FOLDER,
        formats=formats,
        rule_sets=rule_sets,
        language=language,
        accept_edits=accept_edits,
        structures=structures,
        references=references,
    )
    return len(written.paths)
