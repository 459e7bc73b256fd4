"""Judge a run and tell it: scores, figures and one page, written into the run folder."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from glomerulab.evaluation.caveats import find_caveats
from glomerulab.evaluation.intervals import MIN_RESAMPLES
from glomerulab.evaluation.judged import Judged, judged_part
from glomerulab.evaluation.run_tables import RunTables, read_run
from glomerulab.evaluation.scores import score_table
from glomerulab.files import make_folder
from glomerulab.progress import Track, silent
from glomerulab.report.run_facts import appendix_tables, data_table, headline, summary
from glomerulab.report.run_figures import write_run_figures
from glomerulab.report.run_gallery import gallery, gallery_note
from glomerulab.report.score_tables import label_table, overall_table
from glomerulab.report.write_html import Page, write_html
from glomerulab.report.write_scores import write_scores_csv, write_scores_json

__all__ = ["RunReport", "write_run_report"]

FOOTER = (
    "Written by glomerulab. Research use only. This page is complete in itself and loads nothing."
)


@dataclass(frozen=True)
class RunReport:
    """What was found, and where it stands."""

    headline: str
    scores: pd.DataFrame
    html_path: Path


def write_run_report(
    folder: Path,
    *,
    split: str = "test",
    n_resamples: int = MIN_RESAMPLES,
    seed: int = 0,
    track: Track = silent,
) -> RunReport:
    """Judge the held-out part of a run and write ``report.html``, ``figures/``, ``scores.*``.

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
    track : Track, default silent

    Returns
    -------
    RunReport
    """
    run = read_run(folder)
    judged = judged_part(run.predictions, run.taxonomy, head=run.head, split=split)
    scores = score_table(judged, n_resamples=n_resamples, seed=seed)
    sentence = headline(judged, scores)
    about = _about(run, judged, sentence, split=split, n_resamples=n_resamples, seed=seed)
    write_scores_csv(scores, folder / "scores.csv")
    write_scores_json(scores, folder / "scores.json", about=about)
    figures = write_run_figures(run, judged, scores, make_folder(folder / "figures"), track=track)
    page = Page(
        title=f"Evaluation of {folder.resolve().name}",
        is_synthetic=run.is_synthetic,
        headline=sentence,
        summary=summary(judged, n_resamples=n_resamples),
        caveats=tuple(find_caveats(run, judged)),
        tables=(overall_table(judged, scores), label_table(judged, scores), data_table(run)),
        figures=figures,
        gallery=gallery(run, judged),
        gallery_note=gallery_note(judged),
        appendix=appendix_tables(run, judged),
        config_text=run.config_text,
        footer=FOOTER,
    )
    html_path = folder / "report.html"
    write_html(page, html_path)
    return RunReport(sentence, scores, html_path)


def _about(
    run: RunTables, judged: Judged, sentence: str, *, split: str, n_resamples: int, seed: int
) -> dict[str, object]:
    return {
        "research_use_only": True,
        "synthetic": run.is_synthetic,
        "headline": sentence,
        "split": split,
        "head": run.head,
        "taxonomy": run.taxonomy.name,
        "n_images": judged.n_images,
        "n_patients": judged.n_patients,
        "interval": {
            "level": 0.95,
            "method": "percentile bootstrap over patients",
            "n_resamples": n_resamples,
            "seed": seed,
        },
        "caveats": [
            {"title": caveat.title, "text": caveat.text, "severe": caveat.severe}
            for caveat in find_caveats(run, judged)
        ],
    }
