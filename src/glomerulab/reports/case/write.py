"""Every case of a predictions folder in every format that was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from glomerulab.cases.case import Case, build_cases
from glomerulab.cases.case_folder import PREDICTIONS_FILE, read_case_folder
from glomerulab.cases.rules import RuleSet
from glomerulab.errors import PredictionsError
from glomerulab.reports.case.words import Language
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.names import safe_name
from glomerulab.runtime.progress import Track, silent

__all__ = ["FORMATS", "ReportFormat", "WrittenReports", "write_case_reports"]

ReportFormat = Literal["html", "pdf", "csv", "geojson", "dicom-sr", "fhir"]
FORMATS: tuple[ReportFormat, ...] = get_args(ReportFormat)


@dataclass(frozen=True)
class WrittenReports:
    """What was written."""

    cases: tuple[Case, ...]
    paths: tuple[Path, ...]


def write_case_reports(
    predictions: Path,
    out: Path,
    *,
    formats: Sequence[ReportFormat],
    rule_sets: Sequence[RuleSet] | None = None,
    language: Language = "en",
    patient: str | None = None,
    track: Track = silent,
) -> WrittenReports:
    """Write the reports of a predictions folder.

    Parameters
    ----------
    predictions : Path
        What `glomerulab predict` wrote.
    out : Path
        Made if need be; reports of an earlier call are replaced.
    formats : sequence of str
        Of `FORMATS`.
    rule_sets : sequence of RuleSet, optional
        By default all built-in ones.
    language : {"en", "zh"}, default "en"
        Of HTML and PDF.
    patient : str, optional
        Only this one.
    track : Track, optional

    Returns
    -------
    WrittenReports

    Raises
    ------
    PredictionsError
        If the folder is damaged, holds nothing to report, or has no such patient.
    ValueError
        If a format is unknown.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {unknown[0]!r}")
    folder = read_case_folder(predictions)
    cases = build_cases(folder, rule_sets)
    if not cases:
        raise PredictionsError(
            "names no image, judged or not: there is nothing to report; run `glomerulab predict` "
            "again",
            where=str(folder.folder / PREDICTIONS_FILE),
        )
    if patient is not None:
        known = ", ".join(case.patient for case in cases)
        cases = tuple(case for case in cases if case.patient == patient)
        if not cases:
            raise PredictionsError(
                f"no patient {patient!r}; there are: {known}", where=str(predictions)
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
    """Write one case in one format; each writer is loaded when it is needed."""
    stem = safe_name(case.patient)
    if name == "html":
        from glomerulab.reports.case.html import write_case_html

        path = out / f"{stem}.html"
        write_case_html(case, folder, path, language=language)
    elif name == "pdf":
        from glomerulab.reports.case.pdf import write_case_pdf

        path = out / f"{stem}.pdf"
        write_case_pdf(case, folder, path, language=language)
    elif name == "dicom-sr":
        from glomerulab.reports.case.dicom_sr import write_case_sr

        path = out / f"{stem}.dcm"
        write_case_sr(case, path)
    elif name == "fhir":
        from glomerulab.reports.case.fhir import write_case_fhir

        path = out / f"{stem}.fhir.json"
        write_case_fhir(case, path)
    else:
        return _write_tables(case, out, stem) if name == "csv" else _write_places(case, out)
    return [path]


def _write_tables(case: Case, out: Path, stem: str) -> list[Path]:
    from glomerulab.reports.case.csv_tables import write_images_csv, write_results_csv

    images, results = out / f"{stem}.images.csv", out / f"{stem}.results.csv"
    write_images_csv(case, images)
    write_results_csv(case, results)
    return [images, results]


def _write_places(case: Case, out: Path) -> list[Path]:
    from glomerulab.reports.case.geojson import write_case_geojson

    paths = []
    for slide in case.slides:
        paths.append(out / f"{safe_name(slide.slide_id)}.geojson")
        write_case_geojson(case, slide, paths[-1])
    return paths
