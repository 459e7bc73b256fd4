"""Write the cases of a predictions folder in the chosen formats."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from glomerulab.cases.case import Case, build_cases
from glomerulab.cases.case_folder import PREDICTIONS_FILE, read_case_folder
from glomerulab.cases.rules import RuleSet
from glomerulab.errors import PredictionsError
from glomerulab.i18n.catalogue import LANGUAGES, Language
from glomerulab.runtime.files import StrPath, make_folder
from glomerulab.runtime.names import safe_name
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.tables import nfc

__all__ = ["FORMATS", "write_case_reports"]

ReportFormat = Literal["html", "pdf", "csv", "geojson", "dicom-sr", "fhir"]
FORMATS: tuple[ReportFormat, ...] = get_args(ReportFormat)


@dataclass(frozen=True)
class WrittenReports:
    """Cases and files of a call of `write_case_reports`."""

    cases: tuple[Case, ...]
    paths: tuple[Path, ...]


def write_case_reports(
    predictions: StrPath,
    out: StrPath,
    *,
    formats: ReportFormat | Sequence[ReportFormat],
    rule_sets: Sequence[RuleSet] | None = None,
    language: Language = "en",
    patient: str | None = None,
    accept_edits: bool = False,
    track: Track = silent,
) -> WrittenReports:
    """Write the reports of a predictions folder.

    Parameters
    ----------
    predictions : Path
        Folder that `glomerulab predict` wrote.
    out : Path
        Created if missing; earlier reports are replaced.
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

    Raises
    ------
    PredictionsError
        If the folder is damaged, holds nothing to report, or has no such patient.
    ValueError
        If a format or the language is unknown, or no format is given.
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
    folder = read_case_folder(predictions, accept_edits=accept_edits)
    cases = build_cases(folder, rule_sets)
    if not cases:
        raise PredictionsError(
            "the predictions name no image and no failure, so there is nothing to report; run "
            "`glomerulab predict` again",
            where=str(folder.folder / PREDICTIONS_FILE),
        )
    if patient is not None:
        known = ", ".join(case.patient for case in cases)
        cases = tuple(case for case in cases if case.patient == nfc(patient))
        if not cases:
            raise PredictionsError(
                f"no patient {patient!r} in the predictions; there are: {known}",
                where=str(predictions),
            )
    make_folder(out)
    paths = [
        path
        for case in track(cases, "Writing reports", len(cases))
        for name in formats
        for path in _write(case, folder.folder, out, name, language)
    ]
    return WrittenReports(cases, tuple(paths))


def _write(
    case: Case, folder: Path, out: Path, name: ReportFormat, language: Language
) -> list[Path]:
    """Write one case in one format, importing only the libraries of that format."""
    stem = safe_name(case.patient)
    if name == "html":
        from glomerulab.reports.case.html import write_case_html

        paths = [out / f"{stem}.html"]
        write_case_html(case, folder, paths[0], language=language)
    elif name == "pdf":
        from glomerulab.reports.case.pdf import write_case_pdf

        paths = [out / f"{stem}.pdf"]
        write_case_pdf(case, folder, paths[0], language=language)
    elif name == "dicom-sr":
        from glomerulab.reports.case.dicom_sr import write_case_sr

        paths = [out / f"{stem}.dcm"]
        write_case_sr(case, paths[0])
    elif name == "fhir":
        from glomerulab.reports.case.fhir import write_case_fhir

        paths = [out / f"{stem}.fhir.json"]
        write_case_fhir(case, paths[0])
    elif name == "csv":
        from glomerulab.reports.case.csv_tables import write_images_csv, write_results_csv

        paths = [out / f"{stem}.images.csv", out / f"{stem}.results.csv"]
        write_images_csv(case, paths[0])
        write_results_csv(case, paths[1])
    else:
        from glomerulab.reports.case.geojson import write_case_geojson

        paths = [out / f"{safe_name(slide.slide_id)}.geojson" for slide in case.slides]
        for slide, path in zip(case.slides, paths, strict=True):
            write_case_geojson(case, slide, path)
    return paths
