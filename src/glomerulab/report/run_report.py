"""Judge a run and tell it: scores, figures and one page, written into the run folder."""

from dataclasses import dataclass
from pathlib import Path

from glomerulab.evaluation.figures.language import Language, figure_names
from glomerulab.evaluation.intervals import MIN_RESAMPLES
from glomerulab.evaluation.judgement import Judgement, judge_run
from glomerulab.evaluation.run_tables import read_run
from glomerulab.files import make_folder
from glomerulab.progress import Track, silent
from glomerulab.report.certainty_tables import certainty_tables
from glomerulab.report.checklists import checklist_tables
from glomerulab.report.model_card import model_card
from glomerulab.report.run_facts import appendix_tables, data_table, headline, summary
from glomerulab.report.run_figures import write_run_figures
from glomerulab.report.run_gallery import gallery, gallery_note
from glomerulab.report.score_tables import label_table, overall_table
from glomerulab.report.subgroup_tables import subgroup_tables
from glomerulab.report.write_html import Figure, Page, write_html
from glomerulab.report.write_scores import write_scores_json, write_table_csv

__all__ = ["RunReport", "write_run_report"]

FOOTER = (
    "Written by glomerulab. Research use only. This page is complete in itself and loads nothing."
)


@dataclass(frozen=True)
class RunReport:
    """What was found, and where it stands."""

    headline: str
    judgement: Judgement
    html_path: Path
    notice: str = ""
    """Why figures are in English although Chinese was asked for; empty otherwise."""


def write_run_report(
    folder: Path,
    *,
    split: str = "test",
    n_resamples: int = MIN_RESAMPLES,
    seed: int = 0,
    language: Language = "en",
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
        Of the class names in the figures.
    track : Track, default silent

    Returns
    -------
    RunReport
    """
    judgement = judge_run(read_run(folder), split=split, n_resamples=n_resamples, seed=seed)
    sentence = headline(judgement.judged, judgement.scores)
    names = figure_names(judgement.run.taxonomy, language)
    figures = write_run_figures(judgement, names, make_folder(folder / "figures"), track=track)
    write_table_csv(judgement.scores, folder / "scores.csv")
    write_table_csv(judgement.subgroups, folder / "subgroups.csv")
    write_scores_json(judgement, folder / "scores.json", headline=sentence)
    html_path = folder / "report.html"
    write_html(_page(judgement, sentence, figures), html_path)
    return RunReport(sentence, judgement, html_path, names.notice)


def _page(judgement: Judgement, sentence: str, figures: tuple[Figure, ...]) -> Page:
    run, judged, scores = judgement.run, judgement.judged, judgement.scores
    return Page(
        title=f"Evaluation of {run.folder.resolve().name}",
        is_synthetic=run.is_synthetic,
        headline=sentence,
        summary=summary(judged, n_resamples=judgement.n_resamples),
        caveats=judgement.caveats,
        tables=(
            overall_table(judged, scores),
            label_table(judged, scores),
            data_table(run),
        ),
        figures=figures,
        gallery=gallery(run, judged),
        gallery_note=gallery_note(judged),
        appendix=(
            *certainty_tables(judgement),
            *subgroup_tables(judgement),
            model_card(judgement),
            *appendix_tables(run, judged),
            *checklist_tables(judgement),
        ),
        config_text=run.config_text,
        footer=FOOTER,
    )
