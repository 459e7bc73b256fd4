"""The report of a stain check: one HTML file that loads nothing, and two CSV files."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as MatplotlibFigure

from glomerulab.evaluation.figures.embedding import draw_intensity_spread, draw_stain_map
from glomerulab.evaluation.figures.style import (
    FigureFiles,
    figure_fonts,
    figure_names,
    save_figure,
    save_figure_files,
)
from glomerulab.evaluation.stain_check import StainCheck, StainPart
from glomerulab.evaluation.warnings import EvaluationWarning
from glomerulab.i18n.catalogue import Language, translate
from glomerulab.i18n.sentences import translate_filled
from glomerulab.reports.html import page_environment, thumbnail_uri
from glomerulab.reports.run.html import Table
from glomerulab.runtime.files import atomic_write, make_folder, remove_partial_files
from glomerulab.runtime.names import safe_name
from glomerulab.runtime.tables import without_formulas

__all__ = ["write_stain_check"]

N_PANELS = 8
WHEN = ("before", "after")
PANEL_PX = 320
DOTS_PER_INCH = 130

NORMALISATION_MAY_HURT = EvaluationWarning(
    "Normalisation does not always help",
    "Colour augmentation in training often does as well or better (Tellez et al. 2019), and "
    "normalisation can lower accuracy (Vu et al. 2023). Train once without it and compare.",
)
SIMILARITY_IS_BLIND = EvaluationWarning(
    "Similarity does not prove separation",
    "SSIM, PCC and colour difference stay high even where stains are separated wrongly, and t-SNE "
    "maps depend on their settings. Look at the pairs, and at whether the source can still be "
    "predicted.",
)


@dataclass(frozen=True)
class StainCheckFiles:
    """The written files, and the main finding by stain."""

    html_path: Path
    csv_path: Path
    """One row per image."""
    summary_path: Path
    """One row per stain and measure."""
    headline: str


@dataclass(frozen=True)
class _Panel:
    image_id: str
    note: str
    pictures: tuple[tuple[str, str], ...]
    """Caption and data URI of each."""


@dataclass(frozen=True)
class _Figure:
    title: str
    caption: str
    pictures: tuple[tuple[str, str], ...]
    """Alternative text and data URI; side by side where there is room."""


def write_stain_check(
    check: StainCheck,
    out: Path,
    *,
    is_synthetic: bool,
    language: Language = "en",
    files: FigureFiles | None = None,
) -> StainCheckFiles:
    """Write ``stain_check.html``, ``stain_check.csv`` and its summary, and ``figures/``.

    Parameters
    ----------
    out : Path
        Folder, created if missing.
    is_synthetic : bool
        Whether the images are rendered; the page then has a notice.
    language : {"en", "zh"}, default "en"
        Of the page; its figures are English where no font has Chinese.
    files : FigureFiles, optional
        Of the figures; by default PNG and SVG.
    """
    make_folder(out)
    remove_partial_files(out)
    csv_path, html_path = out / "stain_check.csv", out / "stain_check.html"
    summary_path = out / "stain_check_summary.csv"
    with atomic_write(summary_path) as temporary:
        without_formulas(_summary_rows(check)).to_csv(temporary, index=False)
    with atomic_write(csv_path) as temporary:
        without_formulas(check.table).to_csv(temporary, index=False)
    headline = _headline(check)
    names = figure_names(None, language)
    with figure_fonts(names):
        figures = list(_figures(check, make_folder(out / "figures"), files, names.language))
    environment = page_environment("glomerulab.reports.run")
    text = environment.get_template("stain_check.html.j2").render(
        _=lambda text: translate_filled(text, language, "evaluation"),
        language=language,
        is_synthetic=is_synthetic,
        headline=headline,
        warnings=_warnings(check),
        tables=[_summary(check.table), *_prediction_table(check), *_status_table(check.table)],
        panels=_panels(check),
        has_targets=bool(check.targets),
        figures=figures,
    )
    with atomic_write(html_path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return StainCheckFiles(html_path, csv_path, summary_path, headline)


def _headline(check: StainCheck) -> str:
    found = [part for part in check.parts if part.prediction is not None]
    n = len(check.table)
    if not found:
        before, after = (_variation(check.table[f"nmi_{name}"]) for name in ("before", "after"))
        return (
            f"{n} images: intensity varies by {before:.1%} between them before normalisation and "
            f"by {after:.1%} after."
        )
    accuracies = "; ".join(
        f"{_name(part.stain)} {part.prediction.before:.2f} before and {part.prediction.after:.2f} "
        f"after (chance up to {part.prediction.chance:.2f})"
        for part in found
        if part.prediction is not None
    )
    return (
        f"{n} images. Balanced accuracy of predicting {check.column} from the pixels: {accuracies}."
    )


def _name(stain: str) -> str:
    return stain or "no stain given"


def _summary_rows(check: StainCheck) -> pd.DataFrame:
    """Return one row per stain and measure, with its value before and after."""
    rows: list[tuple[str, str, float | None, float | None]] = []
    for part in check.parts:
        table, name = check.table.iloc[part.rows], _name(part.stain)
        rows.append((name, "n_images", len(table), len(table)))
        before, after = (_variation(table[f"nmi_{when}"]) for when in WHEN)
        rows += [(name, "nmi_variation", before, after)]
        for measure in ("saturated", "background"):
            before, after = (float(table[f"{measure}_{when}"].mean()) for when in WHEN)
            rows += [(name, measure, before, after)]
        rows += [(name, m, None, table[m].mean()) for m in ("ssim", "pcc", "background_delta_e")]
        if part.before is not None and part.after is not None:
            trust = (part.before.trustworthiness, part.after.trustworthiness)
            rows.append((name, "tsne_trustworthiness", *trust))
        if part.prediction is not None:
            found = part.prediction
            rows.append((name, f"balanced_accuracy_{found.column}", found.before, found.after))
            rows.append((name, f"chance_{found.column}", None, found.chance))
    return pd.DataFrame(rows, columns=["stain", "measure", "before", "after"])


def _warnings(check: StainCheck) -> list[EvaluationWarning]:
    found = [NORMALISATION_MAY_HURT, SIMILARITY_IS_BLIND]
    for part in check.parts:
        if part.why_no_prediction:
            text = f"{_name(part.stain)}: {part.why_no_prediction}."
            found.append(EvaluationWarning("Source not predicted", text))
    few = [_name(part.stain) for part in check.parts if part.before is None]
    if few:
        text = f"There are too few images for t-SNE of {', '.join(few)}."
        found.append(EvaluationWarning("No map", text))
    if check.unreadable:
        listed = "; ".join(check.unreadable[:5])
        text = f"{len(check.unreadable)} images could not be compared: {listed}"
        found.append(EvaluationWarning("Images left out", text, severe=True))
    return found


def _summary(table: pd.DataFrame) -> Table:
    """Return the means over the images, one row per stain and one over all."""
    stains = table["stain"].fillna("no stain given")
    parts = [(str(stain), rows) for stain, rows in table.groupby(stains)]
    if len(parts) > 1:
        parts.append(("all", table))
    columns = (
        "Stain",
        "Images",
        "NMI variation",
        "SSIM",
        "PCC",
        "Saturated pixels",
        "Background",
        "Background ΔE",
    )
    note = (
        "NMI: median over 95th percentile of tissue intensity; its coefficient of variation over "
        "the images, before and after. SSIM and PCC: of luminance, before against after. "
        "Saturated: a channel at 0 or 255. ΔE: CIE76, of the glass."
    )
    return Table("Changes by normalisation", columns, tuple(map(_row, parts)), note)


def _row(part: tuple[str, pd.DataFrame]) -> tuple[str, ...]:
    stain, rows = part
    return (
        stain,
        str(len(rows)),
        f"{_variation(rows['nmi_before']):.1%} → {_variation(rows['nmi_after']):.1%}",
        f"{rows['ssim'].mean():.3f}",
        f"{rows['pcc'].mean():.3f}",
        f"{rows['saturated_before'].mean():.2%} → {rows['saturated_after'].mean():.2%}",
        f"{rows['background_before'].mean():.1%} → {rows['background_after'].mean():.1%}",
        "no glass"
        if rows["background_delta_e"].isna().all()
        else f"{rows['background_delta_e'].mean():.1f}",
    )


def _prediction_table(check: StainCheck) -> list[Table]:
    parts = [part for part in check.parts if part.prediction is not None]
    if not parts:
        return []
    columns = ("Stain", "Predicted column", "Values", "Images", "Before", "After", "Chance")
    rows = tuple(row for part in parts for row in _prediction_rows(part))
    return [Table("Prediction of the source", columns, rows, _prediction_note(parts[0]))]


def _prediction_rows(part: StainPart) -> list[tuple[str, ...]]:
    found = part.prediction
    if found is None:
        return []
    return [
        (
            _name(part.stain),
            found.column,
            str(found.n_classes),
            str(found.n_images),
            f"{found.before:.3f}",
            f"{found.after:.3f}",
            f"{found.chance:.3f}",
        )
    ]


def _prediction_note(part: StainPart) -> str:
    grouped = part.prediction.grouped_by if part.prediction else ""
    return (
        "Balanced accuracy of logistic regression on colour and texture statistics, "
        f"cross-validated within each stain; no {grouped} occurs on both sides of a fold. "
        "Chance: 95th percentile with shuffled labels. After normalisation the accuracy should be "
        "nearer to chance."
    )


def _status_table(table: pd.DataFrame) -> list[Table]:
    if "stain_status" not in table:
        return []
    counts = table["stain_status"].fillna("not stated").value_counts()
    rows = tuple((str(status), str(n)) for status, n in counts.items())
    return [Table("Status of the images", ("Status", "Images"), rows)]


def _panels(check: StainCheck) -> list[_Panel]:
    """Return pairs spread evenly over the images, ordered by stain and slide."""
    order = check.table.sort_values(["stain", "slide_id", "image_id"], na_position="last").index
    n_panels = min(N_PANELS, len(order))
    chosen = np.unique(np.linspace(0, len(order) - 1, n_panels).round().astype(int))
    targets = {
        stain: thumbnail_uri(path, size_px=PANEL_PX) for stain, path in check.targets.items()
    }
    return [_panel(check, row, targets) for row in order[chosen]]


def _panel(check: StainCheck, number: int, targets: dict[str, str]) -> _Panel:
    row, (before, after) = check.table.loc[number], check.paths[number]
    note = ", ".join(
        str(row[name]) for name in ("stain", "stain_status") if name in row and pd.notna(row[name])
    )
    pictures = [
        ("before", thumbnail_uri(before, size_px=PANEL_PX)),
        ("after", thumbnail_uri(after, size_px=PANEL_PX)),
    ]
    if str(row["stain"]) in targets:
        pictures.append(("target", targets[str(row["stain"])]))
    return _Panel(str(row["image_id"]), note, tuple(pictures))


def _figures(
    check: StainCheck, folder: Path, files: FigureFiles | None, language: Language
) -> Iterable[_Figure]:
    def picture(name: str, figure: MatplotlibFigure) -> str:
        """Write the files of a figure and return its data URI."""
        save_figure(figure, folder, name)
        uri = _png_uri(figure)
        if files is not None:
            save_figure_files(figure, folder, name, files)
        return uri

    for part in check.parts:
        if part.before is None or part.after is None:
            continue
        named = check.table[check.column].iloc[part.rows].fillna("not given")
        sources = named.to_numpy(dtype=object)
        maps = tuple(
            (
                f"Scatter plot of {len(sources)} images {when} normalisation, by {check.column}.",
                picture(
                    f"map_{safe_name(_name(part.stain))}_{when}",
                    draw_stain_map(
                        found,
                        sources,
                        title=translate(when.title(), language),
                        column=check.column,
                        language=language,
                    ),
                ),
            )
            for when, found in zip(WHEN, (part.before, part.after), strict=True)
        )
        yield _Figure(
            f"Maps of the {_name(part.stain)} images (t-SNE of colour and texture statistics)",
            "As Fig. 8 of the paper. Images of one source that are apart before and mix after have "
            "lost its colours; distances between groups have no meaning.",
            maps,
        )
    alt = "Cumulative distributions of normalised median intensity before and after."
    yield _Figure(
        "Spread of intensity",
        "Cumulative share of images. The steeper the curve, the more similar the images.",
        (
            (
                alt,
                picture("intensity_spread", draw_intensity_spread(check.table, language=language)),
            ),
        ),
    )


def _png_uri(figure: MatplotlibFigure) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _variation(values: pd.Series) -> float:
    """Return the coefficient of variation."""
    numbers = values.dropna().to_numpy(dtype=np.float64)
    return float(numbers.std() / numbers.mean()) if len(numbers) else float("nan")
