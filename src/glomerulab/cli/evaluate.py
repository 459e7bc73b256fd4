"""``glomerulab evaluate``: judge a run and write its report; given several, compare them."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from glomerulab.cohort.manifest import Manifest
    from glomerulab.cohort.near_duplicates import NearDuplicate
    from glomerulab.evaluation.error_analysis import WorstError
    from glomerulab.explain.explainer import Explainer
    from glomerulab.reports.run.pictures import Pictures
    from glomerulab.reports.run.report import ExternalSet

__all__ = ["evaluate", "look_into"]

GALLERY_METHOD: Literal["occlusion"] = "occlusion"
"""Of three, the one whose maps most decided the answer when measured, see decision 0063."""


class FigureLanguage(StrEnum):
    """Of the figures and their captions."""

    EN = "en"
    ZH = "zh"


def evaluate(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folder, as `glomerulab train` writes it; several are compared."),
    ],
    *,
    on: Annotated[
        Path | None,
        typer.Option(help="Manifest of an external set: judged too, and put beside."),
    ] = None,
    split: Annotated[str, typer.Option(help="Which part of the predictions to judge.")] = "test",
    by: Annotated[
        list[str] | None,
        typer.Option(help="Column of the manifest to look into, such as site; several times."),
    ] = None,
    tables_only: Annotated[
        bool, typer.Option("--tables-only", help="Open no image and no checkpoint.")
    ] = False,
    resamples: Annotated[
        int, typer.Option(min=2000, help="Resamples of patients, for the intervals.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
    language: Annotated[
        FigureLanguage,
        typer.Option(help="Of figures and their captions; English where no font has Chinese."),
    ] = FigureLanguage.EN,
    out: Annotated[
        Path | None,
        typer.Option(help="Where a comparison goes; by default into the first run's folder."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that read images.")] = 1,
) -> None:
    """Judge a run and write report.html, figures/, scores.csv and scores.json into it.

    Several runs are compared instead: comparison.html and comparison.csv.

    Example: glomerulab evaluate runs/first --on other-hospital/manifest.csv
    """
    from glomerulab.runtime.progress import show_progress

    if len(runs) > 1:
        if on is not None:
            raise typer.BadParameter("judges a single run", param_hint="--on")
        from glomerulab.reports.run.comparison import write_comparison

        comparison = write_comparison(
            runs, out or runs[0], split=split, n_resamples=resamples, seed=seed, track=show_progress
        )
        _tell(comparison.headline, comparison.html_path)
        return
    if out is not None:
        raise typer.BadParameter("is for a comparison of several runs", param_hint="--out")
    if on is not None and tables_only:
        raise typer.BadParameter("needs the checkpoint and the images", param_hint="--on")
    from glomerulab.reports.run.pictures import NO_PICTURES
    from glomerulab.reports.run.report import write_run_report

    external = None if on is None else _external(runs[0], on, workers)
    report = write_run_report(
        runs[0],
        split=split,
        n_resamples=resamples,
        seed=seed,
        language="zh" if language is FigureLanguage.ZH else "en",
        by=by or (),
        pictures=NO_PICTURES if tables_only else look_into(runs[0], split, workers=workers),
        external=external,
        track=show_progress,
    )
    if report.notice:
        typer.echo(report.notice)
    if report.external is not None:
        typer.echo(report.external.headline)
    _tell(report.headline, report.html_path)
    if external is not None and external.n_unreadable:
        raise typer.Exit(1)


def look_into(run: Path, split: str = "test", *, workers: int = 1) -> "Pictures":
    """Open a run's images and its checkpoint for what the tables do not hold.

    Parameters
    ----------
    run : Path
    split : str, default "test"
        The part whose features are asked.
    workers : int, default 1
        Processes that read images.

    Returns
    -------
    Pictures

    Raises
    ------
    CheckpointError
        If the run has none.
    """
    from glomerulab.errors import CheckpointError, ImageFileError
    from glomerulab.evaluation.run_tables import read_run
    from glomerulab.inference.image_predictions import predict_manifest
    from glomerulab.reports.run.pictures import Pictures
    from glomerulab.runtime.progress import show_progress

    tables = read_run(run)
    if not (run / "checkpoint").is_dir():
        raise CheckpointError(
            "missing; copy the whole run folder, or give --tables-only to judge its tables alone",
            where=str(run / "checkpoint"),
        )
    pairs = _near_duplicates(tables.manifest, workers)
    own = tables.manifest.table
    eval_set = set(tables.predictions.loc[tables.predictions["split"] == split, "image_id"])
    part = tables.manifest.with_table(own[own["image_id"].isin(eval_set)])
    try:
        found = predict_manifest(run, part, n_workers=workers, track=show_progress)
        features = _features(found.table["image_id"], found.features)
    except ImageFileError as error:  # the tables can be judged all the same
        typer.echo(f"no image of the {split} part can be read, so none is shown: {error}", err=True)
        features = None
    return Pictures(
        features=features,
        explain=_Overlays(run, tables.image_paths, run / "explanations"),
        near_duplicates=pairs,
    )


def _external(run: Path, on: Path, workers: int) -> "ExternalSet":
    """Predict an external set and look for its pictures among the run's own."""
    from dataclasses import replace

    import pandas as pd

    from glomerulab.cohort.manifest import read_manifest
    from glomerulab.evaluation.run_tables import read_run, with_external_set
    from glomerulab.inference.image_predictions import predict_manifest
    from glomerulab.reports.run.pictures import Pictures
    from glomerulab.reports.run.report import ExternalSet
    from glomerulab.runtime.progress import show_progress

    tables, manifest = read_run(run), read_manifest(on)
    if on.resolve().parent == run.resolve():
        raise typer.BadParameter("is the run's own manifest", param_hint="--on")
    found = predict_manifest(run, manifest, n_workers=workers, track=show_progress)
    for failure in found.failures:
        typer.echo(f"not judged: {failure.item}: {failure.error}", err=True)
    readable = manifest.with_table(
        manifest.table[manifest.table["image_id"].isin(set(found.table["image_id"]))]
    )
    name = f"{on.resolve().parent.name}-{on.stem}"
    both = with_external_set(tables, found.table, readable).manifest
    # Which of the run's own parts a picture stands in does not matter here.
    inside = (both.table["split"] != "external").to_numpy(dtype=bool)
    split = pd.array(["own cohort" if own else "external" for own in inside], dtype="string")
    own_ids = "own:" + both.table["image_id"].astype(str)
    ids = both.table["image_id"].where(~pd.Series(inside), own_ids)
    compared = both.with_table(both.table.assign(split=split, image_id=ids))
    paths = dict(zip(readable.table["image_id"].astype(str), readable.image_paths(), strict=True))
    pictures = Pictures(
        features=_features(found.table["image_id"], found.features),
        explain=_Overlays(run, paths, run / "external" / name / "explanations"),
        near_duplicates=_near_duplicates(replace(compared, folder=Path("/")), workers),
    )
    return ExternalSet(name, readable, found.table, pictures, n_unreadable=len(found.failures))


def _features(ids: "pd.Series", features: "np.ndarray") -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(features, index=ids.astype(str).to_numpy())


class _Overlays:
    """Draws why a model erred; loads the model when it is first asked."""

    def __init__(self, run: Path, image_paths: dict[str, Path], out: Path) -> None:
        self.run, self.image_paths, self.out = run, image_paths, out
        self.explainer: Explainer | None = None

    def __call__(self, error: "WorstError") -> Path | None:
        from glomerulab.explain.explainer import Explainer, ExplainInput

        path = self.image_paths.get(error.image_id)
        if path is None:
            return None
        if self.explainer is None:
            self.explainer = Explainer(self.run, methods=(GALLERY_METHOD,))
        found = self.explainer.explain(
            [ExplainInput(error.image_id, path)],
            self.out,
            label_ids=(error.label_id,),
            measured=False,
        )
        return None if found.failures else self.out / str(found.table["overlay"].iloc[0])


def _near_duplicates(manifest: "Manifest", workers: int) -> "tuple[NearDuplicate, ...] | None":
    """Look for the same picture in two parts; None where an image cannot be read."""
    from glomerulab.cohort.near_duplicates import find_near_duplicates
    from glomerulab.errors import ManifestError
    from glomerulab.runtime.progress import show_progress

    originals = manifest.with_table(manifest.table[manifest.table["parent_id"].isna()])
    try:
        return tuple(find_near_duplicates(originals, n_workers=workers, track=show_progress))
    except ManifestError as error:
        typer.echo(f"near-duplicates not looked for: {error}", err=True)
        return None


def _tell(headline: str, html_path: Path) -> None:
    typer.echo(headline)
    typer.echo("Research use only.")
    typer.echo(f"Report: {html_path}")
