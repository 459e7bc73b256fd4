"""The page and the table of a stain check: one HTML file that loads nothing, and one CSV."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure as MatplotlibFigure

from glomerulab.evaluation.caveats import Caveat
from glomerulab.evaluation.figures.stain_check import embedding_figure, spread_figure
from glomerulab.evaluation.stain_check import SourcePrediction, StainCheck
from glomerulab.files import make_folder, written_whole
from glomerulab.report.data_uri import thumbnail_uri
from glomerulab.report.write_html import Figure, Table

__all__ = ["StainCheckFiles", "write_stain_check"]

N_PANELS = 8
PANEL_PX = 320
DOTS_PER_INCH = 130

NORMALISATION_MAY_HURT = Caveat(
    "Normalisation does not always help",
    "Colour augmentation in training often does as well or better (Tellez et al. 2019), and "
    "normalisation can lower accuracy (Vu et al. 2023). Train once without it and compare.",
)
SIMILARITY_IS_BLIND = Caveat(
    "Similarity does not prove separation",
    "SSIM, PCC and colour difference stay high even where stains are separated wrongly; t-SNE maps "
    "depend on their settings. Look at the pairs, and at whether the source can still be told.",
)


@dataclass(frozen=True)
class StainCheckFiles:
    """What was written, and the finding in one sentence."""

    html_path: Path
    csv_path: Path
    headline: str


@dataclass(frozen=True)
class _Panel:
    image_id: str
    note: str
    before: str
    after: str


def write_stain_check(check: StainCheck, out: Path, *, is_synthetic: bool) -> StainCheckFiles:
    """Write ``stain_check.html`` and ``stain_check.csv``.

    Parameters
    ----------
    check : StainCheck
    out : Path
        Folder; made where it is missing.
    is_synthetic : bool
        Whether the images come from the phantom; the page then says so.

    Returns
    -------
    StainCheckFiles
    """
    make_folder(out)
    csv_path, html_path = out / "stain_check.csv", out / "stain_check.html"
    with written_whole(csv_path) as temporary:
        check.table.to_csv(temporary, index=False)
    headline = _headline(check)
    environment = Environment(
        loader=PackageLoader("glomerulab.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("stain_check.html.j2").render(
        is_synthetic=is_synthetic,
        headline=headline,
        caveats=_caveats(check),
        tables=[_summary(check.table), *_prediction_table(check), *_status_table(check.table)],
        panels=_panels(check),
        figures=list(_figures(check)),
    )
    with written_whole(html_path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return StainCheckFiles(html_path, csv_path, headline)


def _headline(check: StainCheck) -> str:
    found = check.prediction
    n = len(check.table)
    if found is None:
        before, after = (_variation(check.table[f"nmi_{name}"]) for name in ("before", "after"))
        return (
            f"{n} images: intensity varies by {before:.1%} between them before normalisation and "
            f"by {after:.1%} after."
        )
    return (
        f"{n} images: {found.column} is told from the pixels with a balanced accuracy of "
        f"{found.before:.2f} before normalisation and {found.after:.2f} after; chance reaches "
        f"{found.chance:.2f}."
    )


def _caveats(check: StainCheck) -> list[Caveat]:
    found = [NORMALISATION_MAY_HURT, SIMILARITY_IS_BLIND]
    if check.why_no_prediction:
        found.append(Caveat("Source not predicted", f"{check.why_no_prediction.capitalize()}."))
    if check.before is None:
        found.append(Caveat("No map", "There are too few images for t-SNE."))
    if check.unreadable:
        listed = "; ".join(check.unreadable[:5])
        text = f"{len(check.unreadable)} images could not be compared: {listed}"
        found.append(Caveat("Images left out", text, severe=True))
    return found


def _summary(table: pd.DataFrame) -> Table:
    """Means over the images, one row per stain and one over all."""
    stains = table["stain"].fillna("no stain given")
    parts = [(str(stain), rows) for stain, rows in table.groupby(stains)]
    if len(parts) > 1:
        parts.append(("all", table))
    columns = (
        "Stain", "Images", "NMI variation", "SSIM", "PCC", "Saturated pixels", "Background",
        "Background ΔE",
    )  # fmt: skip
    note = (
        "NMI: median over 95th percentile of tissue intensity; its coefficient of variation over "
        "the images, before and after. SSIM and PCC: of luminance, before against after. "
        "Saturated: a channel at 0 or 255. ΔE: CIE76, of the glass."
    )
    return Table("What changed and what was kept", columns, tuple(map(_row, parts)), note)


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
        "no glass" if rows["background_delta_e"].isna().all()
        else f"{rows['background_delta_e'].mean():.1f}",
    )  # fmt: skip


def _prediction_table(check: StainCheck) -> list[Table]:
    if check.prediction is None:
        return []
    found = check.prediction
    columns = ("Predicted from the pixels", "Values", "Images", "Before", "After", "Chance")
    row = (
        found.column, str(found.n_classes), str(found.n_images), f"{found.before:.3f}",
        f"{found.after:.3f}", f"{found.chance:.3f}",
    )  # fmt: skip
    return [Table("Can the source still be told?", columns, (row,), _prediction_note(found))]


def _prediction_note(found: SourcePrediction) -> str:
    return (
        "Balanced accuracy of logistic regression on colour and texture statistics, "
        f"cross-validated; no {found.grouped_by} stands on both sides. Chance: 95th percentile "
        "with shuffled labels. Nearer to chance after normalisation is what one wants."
    )


def _status_table(table: pd.DataFrame) -> list[Table]:
    if "stain_status" not in table:
        return []
    counts = table["stain_status"].fillna("not stated").value_counts()
    rows = tuple((str(status), str(n)) for status, n in counts.items())
    return [Table("What became of the images", ("Status", "Images"), rows)]


def _panels(check: StainCheck) -> list[_Panel]:
    """Pairs spread evenly over the images, ordered by stain and slide."""
    order = check.table.sort_values(["stain", "slide_id", "image_id"], na_position="last").index
    chosen = np.unique(
        np.linspace(0, len(order) - 1, min(N_PANELS, len(order))).round().astype(int)
    )
    panels = []
    for place in order[chosen]:
        row, (before, after) = check.table.loc[place], check.paths[place]
        note = ", ".join(
            str(row[name])
            for name in ("stain", "stain_status")
            if name in row and pd.notna(row[name])
        )
        panels.append(
            _Panel(
                str(row["image_id"]),
                note,
                thumbnail_uri(before, size_px=PANEL_PX),
                thumbnail_uri(after, size_px=PANEL_PX),
            )
        )
    return panels


def _figures(check: StainCheck) -> Iterable[Figure]:
    column = check.prediction.column if check.prediction else "slide_id"
    if check.before is not None and check.after is not None:
        sources = check.table[column].fillna("not given").to_numpy(dtype=object)
        yield Figure(
            "Maps of the images (t-SNE of colour and texture statistics)",
            "As the paper's Fig. 8. Images of one source that stand apart before and mix after "
            "have lost its colours; distances between groups mean nothing.",
            f"Two scatter plots of {len(check.table)} images, before and after, by {column}.",
            _png_uri(embedding_figure(check.before, check.after, sources, column=column)),
        )
    yield Figure(
        "Spread of intensity",
        "Cumulative share of images. The steeper, the more alike the images are.",
        "Cumulative distributions of normalised median intensity before and after.",
        _png_uri(spread_figure(check.table)),
    )


def _png_uri(figure: MatplotlibFigure) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _variation(values: pd.Series) -> float:
    """Coefficient of variation."""
    numbers = values.dropna().to_numpy(dtype=np.float64)
    return float(numbers.std() / numbers.mean()) if len(numbers) else float("nan")
