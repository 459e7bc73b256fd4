"""Judge a run and tell it: scores, figures and one page, written into the run folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from glomerulab.cohort.manifest import Manifest, write_manifest
from glomerulab.evaluation.figures.language import Language, figure_names
from glomerulab.evaluation.intervals import MIN_RESAMPLES
from glomerulab.evaluation.result import EvaluationResult, evaluate_run
from glomerulab.evaluation.run_tables import EXTERNAL, read_run, with_external_set
from glomerulab.evaluation.warnings import EvaluationWarning, find_external_warnings
from glomerulab.predictions import write_predictions
from glomerulab.reports.run.certainty_tables import certainty_tables
from glomerulab.reports.run.checklists import checklist_tables
from glomerulab.reports.run.external_tables import external_tables
from glomerulab.reports.run.facts import appendix_tables, data_table, headline, summary
from glomerulab.reports.run.figure_captions import EXTERNAL_SET
from glomerulab.reports.run.figures import write_run_figures
from glomerulab.reports.run.gallery import gallery, gallery_note
from glomerulab.reports.run.html import Figure, Page, Table, write_html
from glomerulab.reports.run.model_card import model_card
from glomerulab.reports.run.pictures import NO_PICTURES, Pictures
from glomerulab.reports.run.score_files import write_scores_json, write_table_csv
from glomerulab.reports.run.score_tables import delong_table, label_table, overall_table
from glomerulab.reports.run.subgroup_tables import subgroup_tables
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.progress import Track, silent

__all__ = ["ExternalSet", "RunReport", "write_run_report"]

FOOTER = (
    "Written by glomerulab. Research use only. This page is complete in itself and loads nothing."
)

SHOWN_OF_EXTERNAL = ("confusion_matrix", "roc", "reliability")
"""Those external figures that the run's own report repeats."""


@dataclass(frozen=True)
class ExternalSet:
    """Images of elsewhere and what the run's model said of them."""

    name: str
    """Of the folder it gets below ``external`` in the run."""
    manifest: Manifest
    predictions: pd.DataFrame
    pictures: Pictures = NO_PICTURES
    n_unreadable: int = 0
    """Images of the manifest that could not be read, and so were not judged."""


@dataclass(frozen=True)
class RunReport:
    """What was found, and where it stands."""

    headline: str
    judgement: EvaluationResult
    html_path: Path
    notice: str = ""
    """Why figures are in English although Chinese was asked for; empty otherwise."""
    external: "RunReport | None" = None


@dataclass(frozen=True)
class _Settings:
    language: Language
    track: Track


@dataclass(frozen=True)
class _Outside:
    """What the run's own page tells of an external set."""

    judgement: EvaluationResult
    report: RunReport
    figures: tuple[Figure, ...]


def write_run_report(
    folder: Path,
    *,
    split: str = "test",
    n_resamples: int = MIN_RESAMPLES,
    seed: int = 0,
    language: Language = "en",
    by: Sequence[str] = (),
    pictures: Pictures = NO_PICTURES,
    external: ExternalSet | None = None,
    track: Track = silent,
) -> RunReport:
    """Judge the held-out part of a run and write its report and its numbers.

    Parameters
    ----------
    folder : Path
        A run folder; what an earlier call wrote there is replaced.
    split : str, default "test"
        The part that is judged.
    n_resamples : int, default 2000
        Of patients, for the intervals.
    seed : int, default 0
        Of the resampling.
    language : {"en", "zh"}, default "en"
        Of the figures and their captions.
    by : sequence of str, default ()
        Columns of the manifest to look into, such as ``site``.
    pictures : Pictures, default NO_PICTURES
        What pixels and the model add to the tables.
    external : ExternalSet, optional
        Judged too, put beside the run's own part, and written below ``external``.
    track : Track, default silent

    Returns
    -------
    RunReport
    """
    run, settings = read_run(folder), _Settings(language, track)
    found = () if external is None else find_external_warnings(run, external.manifest)
    judgement = evaluate_run(
        run,
        split=split,
        n_resamples=n_resamples,
        seed=seed,
        by=by,
        extra_warnings=(*pictures.warnings(), *found),
        has_external_set=external is not None,
    )
    if external is None:
        return _write(judgement, folder, pictures, settings)[0]
    outside = evaluate_run(
        with_external_set(run, external.predictions, external.manifest),
        split=EXTERNAL,
        n_resamples=n_resamples,
        seed=seed,
        by=[name for name in by if name in external.manifest.table],
        extra_warnings=_warnings_of(external, found),
        has_external_set=True,
    )
    place = make_folder(folder / "external" / external.name)
    write_manifest(external.manifest, place / "manifest.csv")
    write_predictions(external.predictions, place / "predictions.csv")
    beside = external_tables(judgement, outside)
    told, figures = _write(outside, place, external.pictures, settings, beside=beside)
    own, _ = _write(
        judgement,
        folder,
        pictures,
        settings,
        beside=beside,
        outside=_Outside(outside, told, figures),
    )
    return replace(own, external=told)


def _warnings_of(
    external: ExternalSet, found: Sequence[EvaluationWarning]
) -> tuple[EvaluationWarning, ...]:
    """Add to what was found about an external set the images that could not be read."""
    warnings = (*external.pictures.warnings(), *found)
    if not external.n_unreadable:
        return warnings
    text = f"{external.n_unreadable} images of the external manifest could not be read."
    return (*warnings, EvaluationWarning("Images left unjudged", text, severe=True))


def _write(
    judgement: EvaluationResult,
    out: Path,
    pictures: Pictures,
    settings: _Settings,
    *,
    beside: tuple[Table, ...] = (),
    outside: _Outside | None = None,
) -> tuple[RunReport, tuple[Figure, ...]]:
    """Write figures, numbers and page of one judgement."""
    kind = "external" if judgement.split == EXTERNAL else "held-out"
    sentence = headline(judgement.eval_set, judgement.scores, kind=kind)
    names = figure_names(judgement.run.taxonomy, settings.language)
    figures = write_run_figures(
        judgement,
        names,
        make_folder(out / "figures"),
        features=pictures.features,
        track=settings.track,
    )
    write_table_csv(judgement.scores, out / "scores.csv")
    write_table_csv(judgement.subgroups, out / "subgroups.csv")
    write_scores_json(
        judgement,
        out / "scores.json",
        headline=sentence,
        external=outside.judgement if outside else None,
    )
    page = _page(judgement, sentence, figures, pictures, beside=beside, outside=outside)
    write_html(page, out / "report.html")
    report = RunReport(sentence, judgement, out / "report.html", names.notice)
    return report, figures


def _page(
    judgement: EvaluationResult,
    sentence: str,
    figures: tuple[Figure, ...],
    pictures: Pictures,
    *,
    beside: tuple[Table, ...],
    outside: _Outside | None,
) -> Page:
    run, eval_set, scores = judgement.run, judgement.eval_set, judgement.scores
    kind = "External evaluation" if judgement.split == EXTERNAL else "Evaluation"
    known = {} if outside is None else {"external": outside.report.headline}
    if judgement.split == EXTERNAL:
        known = {"external": sentence}
    return Page(
        title=f"{kind} of {run.folder.resolve().name}",
        is_synthetic=run.is_synthetic,
        headline=sentence,
        summary=(*_external_lines(outside), *summary(eval_set, n_resamples=judgement.n_resamples)),
        warnings=judgement.warnings,
        tables=(
            *beside,
            overall_table(eval_set, scores),
            label_table(eval_set, scores),
            data_table(run),
        ),
        figures=(*figures, *_figures_of(outside)),
        gallery=gallery(run, eval_set, pictures=pictures),
        gallery_note=gallery_note(eval_set, pictures=pictures),
        appendix=(
            *certainty_tables(judgement),
            *subgroup_tables(judgement),
            *delong_table(eval_set, judgement.delong),
            model_card(judgement),
            *appendix_tables(run, eval_set),
            *checklist_tables(judgement, **known),
        ),
        config_text=run.config_text,
        footer=FOOTER,
    )


def _external_lines(outside: _Outside | None) -> tuple[str, ...]:
    if outside is None:
        return ()
    place = outside.report.html_path.parent
    return (f"{outside.report.headline} Its own report: {'/'.join(place.parts[-2:])}/report.html.",)


def _figures_of(outside: _Outside | None) -> tuple[Figure, ...]:
    if outside is None:
        return ()
    return tuple(
        replace(figure, title=EXTERNAL_SET[figure.language].format(title=figure.title))
        for figure in outside.figures
        if figure.name in SHOWN_OF_EXTERNAL
    )
