import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glomerulab.evaluation.stain_check import (
    SourcePrediction,
    StainCheck,
    StainEmbedding,
    StainPart,
)
from glomerulab.images import write_image
from glomerulab.reports.run.stain_check import write_stain_check


@pytest.fixture
def check(tmp_path: Path) -> StainCheck:
    rng = np.random.default_rng(0)
    rows, paths = [], []
    for k in range(12):
        path = tmp_path / f"{k}.png"
        write_image(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), path)
        paths.append((path, path))
        rows.append(
            {
                "image_id": f"<b>{k}</b>",
                "patient_id": "p",
                "slide_id": f"s{k % 3}",
                "stain": "HE",
                "stain_status": "normalized",
                "nmi_before": 0.7 + 0.01 * k,
                "nmi_after": 0.75,
                "ssim": 0.95,
                "pcc": 0.97,
                "saturated_before": 0.01,
                "saturated_after": 0.02,
                "background_before": 0.2,
                "background_after": 0.21,
                "background_delta_e": 1.5,
            }
        )
    embedding = StainEmbedding(rng.normal(size=(12, 2)), 0.9)
    return StainCheck(
        table=pd.DataFrame(rows),
        column="slide_id",
        parts=(
            StainPart(
                stain="HE",
                rows=np.arange(12),
                before=embedding,
                after=embedding,
                prediction=SourcePrediction("slide_id", "image_id", 3, 12, 0.9, 0.4, 0.45),
                why_no_prediction="",
            ),
        ),
        unreadable=(),
        paths=tuple(paths),
        targets={"HE": paths[0][0]},
    )


def test_the_page_loads_nothing_and_is_marked_research_use_only(
    check: StainCheck, tmp_path: Path
) -> None:
    files = write_stain_check(check, tmp_path / "out", is_synthetic=False)
    page = files.html_path.read_text(encoding="utf-8")
    assert "Research use only" in page
    assert "SYNTHETIC" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("<img") == 3 * 8 + 2 + 1  # before, after, target; two maps and the spread
    assert "HE 0.90 before and 0.40 after (chance up to 0.45)" in page


def test_names_are_escaped(check: StainCheck, tmp_path: Path) -> None:
    files = write_stain_check(check, tmp_path / "out", is_synthetic=True)
    page = files.html_path.read_text(encoding="utf-8")
    assert "<b>0</b>" not in page
    assert "&lt;b&gt;0&lt;/b&gt;" in page
    assert "SYNTHETIC DATA" in page


def test_the_table_is_written_beside_it(check: StainCheck, tmp_path: Path) -> None:
    files = write_stain_check(check, tmp_path / "out", is_synthetic=False)
    assert len(pd.read_csv(files.csv_path)) == 12
    summary = pd.read_csv(files.summary_path).set_index("measure")
    assert (summary["stain"] == "HE").all()
    assert summary.loc["balanced_accuracy_slide_id", ["before", "after"]].tolist() == [0.9, 0.4]
    assert summary.loc["tsne_trustworthiness", "before"] == pytest.approx(0.9)
    assert summary.loc["ssim", "after"] == pytest.approx(0.95)
    assert summary.loc["nmi_variation", "after"] == pytest.approx(0.0)
    assert {"pcc", "saturated", "background", "background_delta_e"} <= set(summary.index)


def test_missing_parts_are_named(check: StainCheck, tmp_path: Path) -> None:
    bare = StainCheck(
        table=check.table,
        column="scanner",
        parts=(
            StainPart(
                stain="HE",
                rows=np.arange(12),
                before=None,
                after=None,
                prediction=None,
                why_no_prediction="fewer than two values of scanner have two patients or more",
            ),
        ),
        unreadable=("x: not an image",),
        paths=check.paths,
        targets={},
    )
    files = write_stain_check(bare, tmp_path / "out", is_synthetic=False)
    page = files.html_path.read_text(encoding="utf-8")
    assert "HE: fewer than two values of scanner" in page
    assert "too few images for t-SNE" in page
    assert "x: not an image" in page
    assert "intensity varies by" in files.headline
    assert "target" not in page
