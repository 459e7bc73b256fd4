"""The report of a run: scores, figures and one page, written into the run folder."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from glomerulab.cohort.manifest import Manifest, write_manifest
from glomerulab.evaluation.figures.style import FigureFiles, figure_names
from glomerulab.evaluation.folds import fold_scores
from glomerulab.evaluation.intervals import MIN_RESAMPLES
from glomerulab.evaluation.result import EvaluationResult, evaluate_run
from glomerulab.evaluation.run_tables import EXTERNAL, RunTables, read_run, with_external_set
from glomerulab.evaluation.warnings import EvaluationWarning, find_external_warnings
from glomerulab.i18n.catalogue import Language, localized, translate
from glomerulab.predictions import write_predictions
from glomerulab.reports.run.facts import (
    NO_EXTERNAL_SET,
    appendix_tables,
    checklist_tables,
    data_table,
    model_card,
    result_headline,
    summary,
)
from glomerulab.reports.run.figures import (
    TABLES_ONLY,
    ImageAnalysis,
    gallery,
    gallery_note,
    pairs_text,
    write_run_figures,
)
from glomerulab.reports.run.html import Figure, Page, Table, write_html
from glomerulab.reports.run.paper_tables import write_paper_tables
from glomerulab.reports.run.tables import (
    certainty_tables,
    delong_table,
    external_tables,
    fold_table,
    label_table,
    overall_table,
    subgroup_tables,
    write_table_csv,
)
from glomerulab.runtime.files import atomic_write, make_folder, remove_partial_files
from glomerulab.runtime.messages import count_noun
from glomerulab.runtime.progress import Track, silent

__all__ = ["ExternalSet", "RunReport", "write_run_report"]

SHOWN_OF_EXTERNAL = ("confusion_matrix", "roc", "reliability")
"""External figures that the run's own report repeats."""


@dataclass(frozen=True)
class ExternalSet:
    """An external test set and the predictions of the run's model for it."""

    name: str
    """Name of its folder below ``external`` in the run."""
    manifest: Manifest
    predictions: pd.DataFrame
    images: ImageAnalysis = TABLES_ONLY
    n_unreadable: int = 0
    """Images of the manifest that could not be read and are not evaluated."""

    def warnings(self, run: RunTables) -> tuple[EvaluationWarning, ...]:
        """Return the limitations of the set, seen from a run."""
        found = find_external_warnings(run, self.manifest)
        pairs = self.images.near_duplicates
        if pairs is None:
            text = "The external images were not compared with the run's own."
            found.append(EvaluationWarning("External near-duplicates not searched for", text))
        elif pairs:
            text = (
                f"{count_noun(len(pairs), 'pair')} of an external image and one of the run's own "
                f"cohort are nearly equal, so the set is not external: {pairs_text(pairs)}."
            )
            found.append(EvaluationWarning("External set shares images", text, severe=True))
        if self.n_unreadable:
            text = f"{self.n_unreadable} images of the external manifest could not be read."
            found.append(EvaluationWarning("Images not evaluated", text, severe=True))
        return tuple(sorted(found, key=lambda warning: not warning.severe))


@dataclass(frozen=True)
class RunReport:
    """A written report."""

    headline: str
    result: EvaluationResult
    html_path: Path
    notice: str = ""
    """Why figures are in English although Chinese was requested; empty otherwise."""
    external: "RunReport | None" = None


@dataclass(frozen=True)
class _Settings:
    language: Language
    files: FigureFiles | None
    track: Track


@dataclass(frozen=True)
class _External:
    """The written report of an external set, for the run's own page."""

    report: RunReport
    figures: tuple[Figure, ...]
    warnings: tuple[EvaluationWarning, ...]


def write_run_report(
    folder: Path,
    *,
    tables: RunTables | None = None,
    split: str = "test",
    n_resamples: int = MIN_RESAMPLES,
    seed: int = 0,
    language: Language = "en",
    by: Sequence[str] = (),
    images: ImageAnalysis = TABLES_ONLY,
    external: ExternalSet | None = None,
    files: FigureFiles | None = None,
    track: Track = silent,
) -> RunReport:
    """Evaluate a split of a run and write ``report.html``, ``figures/`` and the scores.

    Parameters
    ----------
    folder : Path
        A run folder, or a folder for the report of `tables`; an earlier report in it is replaced.
    tables : RunTables, optional
        By default those of the run; else of another program, see
        `glomerulab.evaluation.prediction_files`.
    split : str, default "test"
    n_resamples : int, default 2000
        Of patients, for the intervals.
    seed : int, default 0
        Of the resampling.
    language : {"en", "zh"}, default "en"
        Of the page and its figures; tables and ``scores.json`` are English.
    by : sequence of str, default ()
        Further columns of the manifest for subgroups, such as ``site``.
    images : ImageAnalysis, default TABLES_ONLY
        What images and checkpoint add to the tables.
    external : ExternalSet, optional
        Evaluated too, shown beside the run's own split, and written below ``external``.
    files : FigureFiles, optional
        Of the figures; by default PNG and SVG.
    track : Track, default silent
    """
    run = read_run(folder) if tables is None else tables
    settings = _Settings(language, files, track)
    evaluate = partial(evaluate_run, n_resamples=n_resamples, seed=seed)
    found = () if external is None else external.warnings(run)
    result = evaluate(
        run,
        split=split,
        by=by,
        extra_warnings=(*found, *(images.warnings() if run.source is None else ())),
        has_external_set=external is not None,
    )
    if external is None:
        return _write(result, folder, images, settings)[0]
    external_result = evaluate(
        with_external_set(run, external.predictions, external.manifest),
        split=EXTERNAL,
        by=[name for name in by if name in external.manifest.table],
        extra_warnings=found,
        has_external_set=True,
    )
    return _write_both(
        result, external_result, folder, images=images, external=external, settings=settings
    )


def _write_both(
    result: EvaluationResult,
    external_result: EvaluationResult,
    folder: Path,
    *,
    images: ImageAnalysis,
    external: ExternalSet,
    settings: _Settings,
) -> RunReport:
    """Write the report of an external set, then that of the run, which links to it."""
    out = make_folder(folder / "external" / external.name)
    write_manifest(external.manifest, out / "manifest.csv")
    write_predictions(external.predictions, out / "predictions.csv")
    tables = external_tables(result, external_result)
    external_report, figures = _write(
        external_result, out, external.images, settings, side_by_side=tables
    )
    shown = _External(external_report, figures, external.warnings(result.run))
    own, _ = _write(result, folder, images, settings, side_by_side=tables, external=shown)
    return replace(own, external=external_report)


def write_scores_json(
    result: EvaluationResult,
    path: Path,
    *,
    headline: str,
    external: EvaluationResult | None = None,
) -> None:
    """Write all results as JSON; NaN becomes null.

    The scores of an external set are under the key ``external``.
    """
    facts = _scores(result, headline)
    if external is not None:
        facts["external"] = {
            "n_images": external.eval_set.n_images,
            "n_patients": external.eval_set.n_patients,
            "scores": external.scores.to_dict("records"),
            "calibration": asdict(external.calibration),
        }
    text = json.dumps(_json_value(facts), ensure_ascii=False, indent=2, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def _write(
    result: EvaluationResult,
    out: Path,
    images: ImageAnalysis,
    settings: _Settings,
    *,
    side_by_side: tuple[Table, ...] = (),
    external: _External | None = None,
) -> tuple[RunReport, tuple[Figure, ...]]:
    """Write figures, numbers and page of one evaluation."""
    remove_partial_files(make_folder(out))
    sentence = result_headline(result)
    names = figure_names(result.run.taxonomy, settings.language)
    figures = write_run_figures(
        result,
        names,
        make_folder(out / "figures"),
        features=images.features,
        files=settings.files,
        track=settings.track,
    )
    write_table_csv(result.scores, out / "scores.csv")
    write_table_csv(result.subgroups, out / "subgroups.csv")
    shown = (
        overall_table(result.eval_set, result.scores),
        label_table(result.eval_set, result.scores),
    )
    write_paper_tables(shown, out / "scores", is_synthetic=result.run.is_synthetic)
    if not result.fold_variation.empty:
        write_table_csv(fold_scores(result.run, result.split), out / "folds.csv")
    write_scores_json(
        result,
        out / "scores.json",
        headline=sentence,
        external=None if external is None else external.report.result,
    )
    page = _page(result, sentence, figures, images, side_by_side=side_by_side, external=external)
    labels = {
        one.name: localized(one, "name", settings.language) for one in result.run.taxonomy.labels
    }
    write_html(page, out / "report.html", settings.language, labels)
    return RunReport(sentence, result, out / "report.html", names.notice), figures


def _kind(result: EvaluationResult) -> str:
    if result.split == EXTERNAL:
        return "External evaluation"
    return "Evaluation" if result.fold_variation.empty else "Cross-validation"


def _page(
    result: EvaluationResult,
    sentence: str,
    figures: tuple[Figure, ...],
    images: ImageAnalysis,
    *,
    side_by_side: tuple[Table, ...],
    external: _External | None,
) -> Page:
    run, eval_set, scores = result.run, result.eval_set, result.scores
    is_external = result.split == EXTERNAL
    if is_external:
        known = sentence
    else:
        known = NO_EXTERNAL_SET if external is None else external.report.headline
    return Page(
        title=f"{_kind(result)} of {run.name}",
        is_synthetic=run.is_synthetic,
        headline=sentence,
        summary=(*_external_lines(external), *summary(eval_set, n_resamples=result.n_resamples)),
        warnings=result.warnings,
        tables=(
            *side_by_side,
            overall_table(eval_set, scores),
            *fold_table(result),
            label_table(eval_set, scores),
            data_table(run),
        ),
        figures=(*figures, *_external_figures(external)),
        gallery=gallery(run, eval_set, images=images),
        gallery_note=gallery_note(eval_set, images=images),
        appendix=(
            *certainty_tables(result),
            *subgroup_tables(result),
            *delong_table(eval_set, result.delong),
            model_card(result),
            *appendix_tables(run, eval_set),
            *checklist_tables(result, external=known),
        ),
        config_text=run.config_text,
    )


def _external_lines(external: _External | None) -> tuple[str, ...]:
    if external is None:
        return ()
    folder = external.report.html_path.parent
    report = f"{'/'.join(folder.parts[-2:])}/report.html"
    severe = ", ".join(one.title for one in external.warnings if one.severe)
    limits = f" Read with care: {severe}." if severe else ""
    return (f"{external.report.headline}{limits} Its own report: {report}.",)


def _external_figures(external: _External | None) -> tuple[Figure, ...]:
    if external is None:
        return ()
    return tuple(
        replace(
            figure, title=translate("External set: {title}", figure.language, title=figure.title)
        )
        for figure in external.figures
        if figure.name in SHOWN_OF_EXTERNAL
    )


def _scores(result: EvaluationResult, headline: str) -> dict[str, Any]:
    run, eval_set, fitted = result.run, result.eval_set, result.fitted
    return {
        "research_use_only": True,
        "synthetic": run.is_synthetic,
        "headline": headline,
        "split": result.split,
        "head": run.head,
        "taxonomy": run.taxonomy.name,
        "n_images": eval_set.n_images,
        "n_patients": eval_set.n_patients,
        "n_left_out": eval_set.n_left_out,
        "interval": {
            "level": 0.95,
            "method": "percentile bootstrap over patients",
            "n_resamples": result.n_resamples,
            "seed": result.seed,
        },
        "caveats": [asdict(warning) for warning in result.warnings],
        "scores": result.scores.to_dict("records"),
        "calibration": asdict(result.calibration) if eval_set.has_probabilities else None,
        "fitted_on_validation": None
        if fitted is None
        else {
            "n_images": fitted.n_images,
            "by_fold": fitted.by_fold,
            "temperature": fitted.temperature,
            "calibration": asdict(fitted.calibration),
            "conformal": [asdict(one) for one in fitted.conformal],
        },
        "subgroups": result.subgroups.to_dict("records"),
        "delong": result.delong.to_dict("records"),
        "fold_variation": result.fold_variation.to_dict("records"),
    }


def _json_value(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Convert numpy's numbers to Python's, and NaN to None."""
    if isinstance(value, Mapping):
        return {str(key): _json_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    return value
