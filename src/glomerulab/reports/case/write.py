"""Write the cases of a predictions folder in the chosen formats."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from glomerulab.cases.case import Case, build_cases
from glomerulab.cases.case_folder import PREDICTIONS_FILE, CaseFolder, read_case_folder
from glomerulab.cases.corrections import NOT_A_GLOMERULUS
from glomerulab.cases.rules import RuleSet
from glomerulab.errors import PredictionsError
from glomerulab.i18n.catalogue import LANGUAGES, Language
from glomerulab.reports.case.written_files import FolderOfReports, Leftovers
from glomerulab.runtime.files import StrPath, make_folder, remove_partial_files
from glomerulab.runtime.names import safe_name
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.tables import nfc
from glomerulab.taxonomy import Taxonomy

if TYPE_CHECKING:
    from glomerulab.reports.case.html import PagePictures

__all__ = ["FORMATS", "write_case_reports"]

ReportFormat = Literal["html", "pdf", "csv", "geojson", "dicom-sr", "fhir"]
FORMATS: tuple[ReportFormat, ...] = get_args(ReportFormat)
SUFFIXES = {
    "html": (".html",),
    "pdf": (".pdf",),
    "dicom-sr": (".dcm",),
    "fhir": (".fhir.json",),
    "csv": (".images.csv", ".results.csv"),
}
"""Of the formats with files per patient."""


@dataclass(frozen=True)
class WrittenReports:
    """Cases and files of a call of `write_case_reports`."""

    cases: tuple[Case, ...]
    paths: tuple[Path, ...]
    leftovers: Leftovers = field(default_factory=Leftovers)
    """Of earlier calls, of patients whose id was corrected since."""


def write_case_reports(
    predictions: StrPath,
    out: StrPath,
    *,
    formats: ReportFormat | Sequence[ReportFormat],
    rule_sets: Sequence[RuleSet] | None = None,
    language: Language = "en",
    patient: str | None = None,
    accept_edits: bool = False,
    maps: bool = False,
    slides: StrPath | None = None,
    structures: StrPath | None = None,
    references: StrPath | None = None,
    track: Track = silent,
) -> WrittenReports:
    """Write the reports of a predictions folder.

    Parameters
    ----------
    predictions : Path
        Folder that `glomerulab predict` wrote.
    out : Path
        Created if missing; earlier reports are replaced. Those of a patient whose slides or images
        belong to another one now are removed, unless somebody changed them.
    formats : str or sequence of str
        Of `FORMATS`.
    rule_sets : sequence of RuleSet, optional
        By default all built-in ones.
    language : {"en", "zh"}, default "en"
        Of HTML and PDF.
    patient : str, optional
        Write only the reports of this patient.
    accept_edits : bool, default False
        Report predictions that were changed since they were made; every report states it.
    maps : bool, default False
        Also show saliency maps that failed their tests.
    slides : Path, optional
        The slides, a folder of them or a slides table: the HTML page then holds the surroundings of
        each glomerulus from its slide.
    structures : Path, optional
        Folder that `glomerulab segment` wrote for the slides of the predictions: the reports also
        give areas, shares of the cortex, Oxford's T and Banff-like ci and ct.
    references : Path, optional
        Folder with a PNG or JPEG of each label, named after its id: the HTML page shows them with
        the definitions.

    Raises
    ------
    PredictionsError
        If the folder is damaged, holds nothing to report, or has no such patient; or if the record
        of earlier reports is damaged.
    ValueError
        If a format or the language is unknown, or no format is given.
    ImageFileError
        If `references` holds no picture of a label, or one cannot be read.
    """
    out = Path(out)
    formats = (formats,) if isinstance(formats, str) else formats
    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}, got {language!r}")
    if not formats:
        raise ValueError(f"formats must name one or more of {', '.join(FORMATS)}, got none")
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"formats must be one of {', '.join(FORMATS)}, got {unknown[0]!r}")
    folder = _read(predictions, accept_edits=accept_edits, maps=maps)
    pictures = _pictures(slides, references, folder.taxonomy)
    cases = build_cases(folder, rule_sets, structures=structures)
    if not cases:
        raise PredictionsError(
            "the predictions name no image and no failure, so there is nothing to report; run "
            "`glomerulab predict` again",
            where=str(folder.folder / PREDICTIONS_FILE),
        )
    every_case = cases
    if patient is not None:
        known = ", ".join(case.patient for case in cases)
        cases = tuple(case for case in cases if case.patient == nfc(patient))
        if not cases:
            raise PredictionsError(
                f"no patient {patient!r} in the predictions; there are: {known}",
                where=str(predictions),
            )
    reports = FolderOfReports.open(make_folder(out), folder.folder)
    remove_partial_files(out)
    leftovers = reports.remove_leftovers(every_case)
    planned = {case.patient: [_paths(case, out, name) for name in formats] for case in cases}
    for case in cases:
        reports.add(case, chain(*planned[case.patient]), are_written=False)
    reports.save()
    try:
        for case in track(cases, "Writing reports", len(cases)):
            for name, paths in zip(formats, planned[case.patient], strict=True):
                _write(case, folder.folder, paths, name, language, pictures=pictures)
                reports.add(case, paths, are_written=True)
    finally:
        reports.save()
    written = tuple(path for of_case in planned.values() for path in chain(*of_case))
    return WrittenReports(cases, written, leftovers)


def _pictures(
    slides: StrPath | None, references: StrPath | None, taxonomy: Taxonomy
) -> "PagePictures | None":
    """Return what the HTML page shows beside the pictures of the predictions."""
    if slides is None and references is None:
        return None
    from glomerulab.reports.case.html import PagePictures
    from glomerulab.reports.case.surroundings import Surroundings
    from glomerulab.reports.references import read_references

    around = None if slides is None else Surroundings(Path(slides))
    ids = (*taxonomy.label_ids, NOT_A_GLOMERULUS)
    found = {} if references is None else read_references(Path(references), ids)
    return PagePictures(surroundings=around, references=found)


def _paths(case: Case, out: Path, name: ReportFormat) -> list[Path]:
    """Return the files of one case in one format."""
    if name == "geojson":
        return [out / f"{safe_name(slide.slide_id)}.geojson" for slide in case.slides]
    return [out / f"{safe_name(case.patient)}{suffix}" for suffix in SUFFIXES[name]]


def _read(predictions: StrPath, *, accept_edits: bool, maps: bool) -> CaseFolder:
    """Read the predictions; with `maps`, as if their saliency maps had not failed."""
    folder = read_case_folder(predictions, accept_edits=accept_edits)
    if not maps:
        return folder
    return replace(folder, facts=folder.facts.model_copy(update={"map_test": None}))


def _write(
    case: Case,
    folder: Path,
    paths: Sequence[Path],
    name: ReportFormat,
    language: Language,
    *,
    pictures: "PagePictures | None",
) -> None:
    """Write one case in one format, importing only the libraries of that format."""
    if name == "html":
        from glomerulab.reports.case.html import write_case_html

        write_case_html(case, folder, paths[0], language=language, pictures=pictures)
    elif name == "pdf":
        from glomerulab.reports.case.pdf import write_case_pdf

        write_case_pdf(case, folder, paths[0], language=language)
    elif name == "dicom-sr":
        from glomerulab.reports.case.dicom_sr import write_case_sr

        write_case_sr(case, paths[0])
    elif name == "fhir":
        from glomerulab.reports.case.fhir import write_case_fhir

        write_case_fhir(case, paths[0])
    elif name == "csv":
        from glomerulab.reports.case.csv_tables import write_images_csv, write_results_csv

        write_images_csv(case, paths[0])
        write_results_csv(case, paths[1])
    else:
        from glomerulab.reports.case.geojson import write_case_geojson

        for slide, path in zip(case.slides, paths, strict=True):
            write_case_geojson(case, slide, path)
