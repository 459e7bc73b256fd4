import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glomerulab.evaluation.stain_check import (
    StainCheck,
    StainPart,
)
from glomerulab.reports.run.stain_check import write_stain_check
from tests.support.result_pages import stain_check


@pytest.fixture
def check(tmp_path: Path) -> StainCheck:
    return stain_check(tmp_path)


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
