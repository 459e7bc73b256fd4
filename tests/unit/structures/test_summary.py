from pathlib import Path

import pytest

from glomerulab.errors import GlomerulabError
from glomerulab.structures.summary import (
    Range,
    SlideSummary,
    StructureSummary,
    read_summary,
    write_summary,
)


@pytest.fixture
def summary() -> SlideSummary:
    return SlideSummary(
        slide_id="肾 1",
        stain="PAS",
        mpp=(1.0, 1.01),
        structures={
            "cortex": StructureSummary(Range(3.0, 4.0, 5.0)),
            "atrophic_tubule": StructureSummary(
                Range(0.1, 0.2, 0.3),
                cortex_mm2=Range(0.1, 0.2, 0.3),
                share_of_cortex=Range(0.025, 0.05, 0.075),
                n=Range(10, 12, 15),
                n_at_edge=1,
            ),
        },
        glomeruli_per_mm2=None,
        notes=("the segmenter does not know glomeruli",),
    )


def test_a_summary_is_read_back_equal(summary: SlideSummary, tmp_path: Path) -> None:
    write_summary(summary, tmp_path / "summary.json")
    read = read_summary(tmp_path / "summary.json")
    assert read == summary
    assert read.cortex_mm2 == (3.0, 4.0, 5.0)
    assert read.atrophy_share == Range(0.025, 0.05, 0.075)
    assert read.fibrosis_share is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"slide_id": "a"}', b"\xff\xfe", b'{"slide_id": null}']
)
def test_a_damaged_summary_is_an_error_with_its_path(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_bytes(content)
    with pytest.raises(GlomerulabError, match="damaged") as caught:
        read_summary(path)
    assert caught.value.where == str(path)


def test_a_missing_summary_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(GlomerulabError, match="glomerulab segment"):
        read_summary(tmp_path / "summary.json")
