"""The page of `explain`: whether maps of this model passed their tests, then every image's maps."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from glomerulab.errors import ImageFileError
from glomerulab.i18n.catalogue import Language, localized, translate
from glomerulab.reports.html import page_environment, thumbnail_uri
from glomerulab.runtime.files import atomic_write
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "VERDICTS_FILE",
    "MapTest",
    "Verdict",
    "map_tests",
    "read_map_test",
    "write_explanations_html",
]

Verdict = Literal["passed", "failed", "untested"]

VERDICTS_FILE = "verdicts.csv"
"""Of ``explain``; `predict` reads it where the run has it."""
CONTROLS = ("random", "centre")
DRAWN = ("grad-cam", "integrated-gradients", "occlusion")
"""Methods in the order in which `predict` prefers them."""
TESTED = ("deletion", "energy_inside")
HIGHER_IS_BETTER = {"deletion": False, "energy_inside": True}
MEASURES = ("points_inside", "energy_inside", "deletion", "insertion")
SAME_MAP = 0.5
"""Rank correlation with the maps of random weights from which a map draws the image alone."""
MOST_SHOWN = 60
"""Images on the page."""
MAP_PX = 560


@dataclass(frozen=True)
class MapTest:
    """Whether the maps of a method passed the tests against controls and random weights."""

    method: str
    verdict: Verdict
    failed: tuple[str, ...]
    """Measures in which a control without a model was as good, and ``sanity``."""


def map_tests(summary: pd.DataFrame, sanity: pd.DataFrame | None) -> tuple[MapTest, ...]:
    """Return the tests of each method.

    Parameters
    ----------
    summary : DataFrame
        Of `glomerulab.reports.run.explanation_summary.explanation_summary`.
    sanity : DataFrame, optional
        Of `sanity_summary`.
    """
    if summary.empty:
        return ()
    overall = summary[summary["label"].isna()]
    values = overall.pivot_table(index="method", columns="measure", values="value", sort=False)
    methods = [str(name) for name in values.index if name not in CONTROLS]
    return tuple(_test(values, sanity, method) for method in methods)


def _test(values: pd.DataFrame, sanity: pd.DataFrame | None, method: str) -> MapTest:
    controls = [name for name in CONTROLS if name in values.index]
    failed, n_tests = [], 0
    for measure in TESTED:
        if measure not in values or not controls:
            continue
        own, others = values[measure][method], values[measure][controls]
        if np.isnan(own):
            continue
        n_tests += 1
        is_better = own > others.max() if HIGHER_IS_BETTER[measure] else own < others.min()
        if not is_better:
            failed.append(measure)
    if sanity is not None and len(sanity):
        of_method = sanity[sanity["method"] == method].sort_values("random_share")
        correlation = of_method["rank_correlation"].dropna()
        if len(correlation):
            n_tests += 1
            if correlation.iloc[-1] >= SAME_MAP:
                failed.append("sanity")
    verdict: Verdict = "untested" if n_tests == 0 else "failed" if failed else "passed"
    return MapTest(method, verdict, tuple(failed))


def read_map_test(run: Path) -> Verdict:
    """Return whether the maps of the method that `predict` draws passed the tests of a run."""
    path = run / "explanations" / VERDICTS_FILE
    if not path.is_file():
        return "untested"
    found = pd.read_csv(path, dtype=str)
    known: dict[str, Verdict] = {"passed": "passed", "failed": "failed"}
    for method in DRAWN:
        verdicts = found.loc[found["method"] == method, "verdict"]
        if len(verdicts):
            return known.get(str(verdicts.iloc[0]), "untested")
    return "untested"


def write_explanations_html(
    table: pd.DataFrame,
    summary: pd.DataFrame,
    tests: Iterable[MapTest],
    folder: Path,
    *,
    taxonomy: Taxonomy,
    title: str,
    language: Language = "en",
) -> Path:
    """Write ``explanations.html`` beside the overlays of `folder`, as one file that loads nothing.

    Parameters
    ----------
    table : DataFrame
        Of `glomerulab.explain.explainer.Explainer.explain`.
    """
    names = {label.id: localized(label, "name", language) for label in taxonomy.labels}
    drawn = table[table["overlay"].fillna("") != ""]
    ids = list(drawn["image_id"].drop_duplicates())
    images = [
        (name, _maps(drawn[drawn["image_id"] == name], folder, names)) for name in ids[:MOST_SHOWN]
    ]
    overall = summary[summary["label"].isna()] if len(summary) else summary
    page = (
        page_environment("glomerulab.reports.run")
        .get_template("explanations.html.j2")
        .render(
            _=partial(translate, language=language),
            language=language,
            title=title,
            tests=tuple(tests),
            measures=[one for one in MEASURES if len(overall) and one in set(overall["measure"])],
            values={(str(row.method), str(row.measure)): row.value for row in overall.itertuples()},
            methods=list(dict.fromkeys(overall["method"])) if len(overall) else [],
            images=images,
            n_images=len(ids),
        )
    )
    path = folder / "explanations.html"
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _maps(
    rows: pd.DataFrame, folder: Path, names: dict[str, str]
) -> list[tuple[str, str, float, str]]:
    """Return label, method, probability and picture of each map of an image."""
    found = []
    for row in rows.itertuples():
        try:
            uri = thumbnail_uri(folder / str(row.overlay), size_px=MAP_PX)
        except ImageFileError:  # deleted meanwhile; its row is in explanations.csv
            continue
        label = names.get(str(row.label), str(row.label))
        found.append((label, str(row.method), float(str(row.probability)), uri))
    return found
