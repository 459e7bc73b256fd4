import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import CaseFolder
from glomerulab.cases.grading import apply_rule_set
from glomerulab.cases.rules import load_rule_set
from glomerulab.cases.structures import CaseStructures, measure_case, read_case_structures
from glomerulab.errors import GlomerulabError
from glomerulab.structures.summary import Range, SlideSummary
from tests.support.cases import PAPER
from tests.support.outlines import outlined_slide, write_outlines

# Published limits, in whole per cent. Oxford: Working Group, Kidney Int 76:534, 2009 (T0 0-25, T1
# 26-50, T2 above 50). Banff: Roufosse et al., Transplantation 102:1795, 2018 (ci0 up to 5, ci1
# 6-25, ci2 26-50, ci3 above 50; ct0 none, ct1 up to 25, ct2 26-50, ct3 above 50).
OXFORD_T = {"T0": range(26), "T1": range(26, 51), "T2": range(51, 101)}
BANFF_CI = {"ci0": range(6), "ci1": range(6, 26), "ci2": range(26, 51), "ci3": range(51, 101)}
BANFF_CT = {"ct0": range(1), "ct1": range(1, 26), "ct2": range(26, 51), "ct3": range(51, 101)}


def _published(limits: dict[str, range], percent: int) -> str:
    return next(grade for grade, percents in limits.items() if percent in percents)


def _measured(*slides: SlideSummary, arteries: int = 2) -> CaseStructures:
    return measure_case(slides, arteries=[Range(arteries, arteries, arteries)] * len(slides))


def _item(structures: CaseStructures | None, rule_set: str, item: str):
    answers = apply_rule_set(load_rule_set(rule_set), (), PAPER, structures=structures)
    return next(one for one in answers.items if one.item.id == item)


def _grade(structures: CaseStructures, rule_set: str, item: str) -> str:
    grade = _item(structures, rule_set, item).grade
    assert grade is not None
    return grade.grade


@pytest.mark.parametrize("percent", range(101))
def test_every_whole_per_cent_has_its_published_grade(percent: int) -> None:
    fibrosis = _measured(outlined_slide(fibrosis=percent / 100))
    assert _grade(fibrosis, "mest_c_like", "T") == _published(OXFORD_T, percent)
    assert _grade(fibrosis, "banff_like", "ci") == _published(BANFF_CI, percent)
    atrophy = _measured(outlined_slide(atrophy=percent / 100, tubules=1.0))
    assert _grade(atrophy, "banff_like", "ct") == _published(BANFF_CT, percent)
    assert _grade(atrophy, "mest_c_like", "T") == _published(OXFORD_T, percent)


@given(st.floats(0, 1), st.floats(0, 1))
def test_oxford_t_goes_by_the_greater_share(atrophy: float, fibrosis: float) -> None:
    structures = _measured(outlined_slide(atrophy=atrophy, fibrosis=fibrosis, tubules=1.0))
    by_greater = _measured(outlined_slide(fibrosis=max(atrophy, fibrosis), tubules=1.0))
    assert _grade(structures, "mest_c_like", "T") == _grade(by_greater, "mest_c_like", "T")


def test_a_range_across_a_limit_leaves_both_grades_possible() -> None:
    structures = _measured(outlined_slide(fibrosis=Range(0.2, 0.24, 0.3)))
    t = _item(structures, "mest_c_like", "T")
    assert t.grade is not None
    assert t.grade.grade == "T0"
    assert [one.grade for one in t.possible] == ["T1", "T0"]
    wide = _item(_measured(outlined_slide(fibrosis=Range(0.01, 0.3, 0.6))), "banff_like", "ci")
    assert [one.grade for one in wide.possible] == ["ci3", "ci2", "ci1", "ci0"]
    narrow = _item(_measured(outlined_slide(fibrosis=Range(0.1, 0.12, 0.2))), "mest_c_like", "T")
    assert [one.grade for one in narrow.possible] == ["T0"]


@pytest.mark.parametrize(("n", "expected"), [(0, "inadequate"), (1, "marginal"), (2, "adequate")])
def test_banff_asks_for_two_arteries(n: int, expected: str) -> None:
    assert _grade(_measured(outlined_slide(), arteries=n), "adequacy", "arteries") == expected


@pytest.mark.parametrize(
    ("rule_set", "item"),
    [("mest_c_like", "T"), ("banff_like", "ci"), ("banff_like", "ct"), ("adequacy", "arteries")],
)
def test_without_outlines_a_measured_item_is_not_assessed(rule_set: str, item: str) -> None:
    found = _item(None, rule_set, item)
    assert found.grade is None
    assert found.not_assessed is not None
    assert found.not_assessed["en"].startswith("needs")


def test_a_segmenter_that_lacks_a_class_leaves_its_item_open_and_names_the_class() -> None:
    structures = _measured(outlined_slide(without=("atrophic_tubule",), fibrosis=0.4))
    t = _item(structures, "mest_c_like", "T")
    assert t.grade is None
    assert t.not_assessed is not None
    assert "atrophic tubule" in t.not_assessed["en"]
    assert _grade(structures, "banff_like", "ci") == "ci2"
    no_cortex = _measured(outlined_slide(without=("cortex",)))
    assert no_cortex["glomeruli"].value is not None
    assert no_cortex["glomeruli_per_mm2"].value is None
    assert "cortex" in no_cortex["glomeruli_per_mm2"].basis["en"]


@pytest.mark.parametrize(
    ("structure", "rule_set", "item"),
    [
        ("atrophic_tubule", "mest_c_like", "T"),
        ("fibrosis", "mest_c_like", "T"),
        ("cortex", "mest_c_like", "T"),
        ("fibrosis", "banff_like", "ci"),
        ("tubule", "banff_like", "ct"),
        ("atrophic_tubule", "banff_like", "ct"),
        ("artery", "adequacy", "arteries"),
    ],
)
def test_what_the_segmenter_hardly_finds_is_not_graded_and_its_score_is_named(
    structure: str, rule_set: str, item: str
) -> None:
    found = _item(_measured(outlined_slide(hardly_found={structure: 0.03})), rule_set, item)
    assert found.grade is None
    assert found.not_assessed is not None
    for text in found.not_assessed.values():
        assert "net" in text
        assert "0.03" in text
    assert structure.replace("_", " ").removeprefix("interstitial ") in found.not_assessed["en"]


def test_only_what_needs_the_structure_is_not_assessed() -> None:
    structures = _measured(outlined_slide(hardly_found={"cortex": 0.1}))
    missing = {one.key for one in structures.measures if one.value is None}
    assert missing == {
        "cortex_mm2",
        "atrophy",
        "fibrosis",
        "atrophy_or_fibrosis",
        "together",
        "atrophy_of_tubules",
        "glomeruli_per_mm2",
    }


def test_slides_are_pooled_by_their_cortex() -> None:
    small = outlined_slide("a", cortex=1.0, fibrosis=0.8, glomeruli=3)
    large = outlined_slide("b", cortex=3.0, fibrosis=0.2, glomeruli=9)
    structures = _measured(small, large)
    assert structures["cortex_mm2"].value == pytest.approx((4.0, 4.0, 4.0))
    assert structures["fibrosis"].value == pytest.approx([0.35] * 3)
    assert structures["glomeruli_per_mm2"].value == pytest.approx([3.0] * 3)
    assert structures["glomeruli"].value == (12, 12, 12)
    assert structures["arteries"].value == (4, 4, 4)
    assert "each section counts again" in structures["arteries"].basis["en"]
    assert structures["fibrosis"].basis["en"] == "2 outlined slides"


def test_a_slide_without_cortex_gives_no_share() -> None:
    structures = _measured(outlined_slide(cortex=0.0))
    assert structures["fibrosis"].value is None
    assert structures["glomeruli_per_mm2"].value is None
    assert _item(structures, "mest_c_like", "T").grade is None


@given(
    st.lists(
        st.tuples(st.floats(0.01, 50), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
        min_size=1,
        max_size=4,
    )
)
def test_pooled_shares_lie_between_those_of_the_slides_and_keep_their_order(slides) -> None:
    ranges = [Range(*sorted(ends)) for _, *ends in slides]
    structures = _measured(
        *(
            outlined_slide(str(n), cortex=area, fibrosis=share)
            for n, ((area, *_), share) in enumerate(zip(slides, ranges, strict=True))
        )
    )
    pooled = structures["fibrosis"].value
    assert pooled is not None
    assert pooled.low <= pooled.likely <= pooled.high
    for end, of_slides in zip(pooled, zip(*ranges, strict=True), strict=True):
        assert min(of_slides) - 1e-9 <= end <= max(of_slides) + 1e-9


def test_values_are_written_with_unit_and_range() -> None:
    structures = _measured(outlined_slide(cortex=2.0, fibrosis=Range(0.1, 0.125, 0.2)))
    assert structures["fibrosis"].text("en") == "12.5 % (10.0 – 20.0 %)"
    assert structures["cortex_mm2"].text("en") == "2.00 mm²"
    assert structures["arteries"].text("zh") == "2"


def test_a_folder_of_outlines_gives_the_slides_of_a_case_and_its_wide_arteries(tmp_path) -> None:
    write_outlines(
        tmp_path,
        [outlined_slide("s1", fibrosis=0.1), outlined_slide("other", fibrosis=0.9)],
        arteries={"s1": (20.0, 44.9, 45.0, 120.0)},
    )
    structures = read_case_structures(tmp_path, {"s1", "s2"})
    assert structures.slides == ("s1",)
    assert structures.without == ("s2",)
    assert structures["fibrosis"].value == pytest.approx([0.1] * 3)
    assert structures["arteries"].value == (2, 2, 2)
    assert "1 without outlines" in structures["arteries"].basis["en"]


def test_the_folder_of_one_slide_is_read(tmp_path: Path) -> None:
    (place,) = write_outlines(tmp_path, [outlined_slide("s1")])
    assert read_case_structures(place, {"s1"}).slides == ("s1",)


def test_without_the_table_of_objects_arteries_are_not_counted(tmp_path: Path) -> None:
    (place,) = write_outlines(tmp_path, [outlined_slide("s1")])
    (place / "objects.csv").unlink()
    arteries = read_case_structures(tmp_path, {"s1"})["arteries"]
    assert arteries.value is None
    assert "objects.csv" in arteries.basis["en"]


def test_a_folder_that_holds_none_of_the_slides_leaves_all_open(tmp_path: Path) -> None:
    write_outlines(tmp_path, [outlined_slide("other")])
    structures = read_case_structures(tmp_path, {"s1"})
    assert all(one.value is None for one in structures.measures)
    assert "no slide" in structures["fibrosis"].basis["en"]


def test_a_folder_without_outlines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GlomerulabError, match="glomerulab segment"):
        read_case_structures(tmp_path, {"s1"})


@pytest.mark.parametrize("damage", ["columns", "number", "table"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    (place,) = write_outlines(tmp_path, [outlined_slide("s1")])
    path = tmp_path / "slides.csv" if damage == "table" else place / "objects.csv"
    text = {
        "columns": "object_id\nartery-1\n",
        "number": "structure,equivalent_diameter_um,certainty\nartery,wide,1\n",
        "table": "slide_id\ns1\n",
    }
    path.write_text(text[damage], encoding="utf-8")
    with pytest.raises(GlomerulabError, match="segment") as caught:
        read_case_structures(tmp_path, {"s1"})
    assert path.name in str(caught.value)


def test_outlines_of_another_slide_are_refused(tmp_path: Path) -> None:
    write_outlines(tmp_path, [outlined_slide("s1"), outlined_slide("s2", fibrosis=0.6)])
    (tmp_path / "slides" / "s2" / "summary.json").replace(
        tmp_path / "slides" / "s1" / "summary.json"
    )
    with pytest.raises(GlomerulabError, match="slide 's2', not of 's1'"):
        read_case_structures(tmp_path, {"s1"})


@pytest.mark.parametrize("row", ["s1,slides/s2", "s1,slides/\0"])
def test_a_slide_stands_once_in_the_table(tmp_path: Path, row: str) -> None:
    write_outlines(tmp_path, [outlined_slide("s1"), outlined_slide("s2", fibrosis=0.6)])
    rows = {"s1,slides/s2": ["s1,slides/s1", row], "s1,slides/\0": [row]}[row]
    (tmp_path / "slides.csv").write_text("\n".join(["slide_id,folder", *rows]), encoding="utf-8")
    with pytest.raises(GlomerulabError, match="segment"):
        read_case_structures(tmp_path, {"s1"})


@pytest.mark.parametrize(
    ("structure", "field", "ends"),
    [
        ("cortex", "area_mm2", [math.nan] * 3),
        ("cortex", "area_mm2", [1.0, 2.0, math.inf]),
        ("cortex", "area_mm2", [-3.0, -2.0, -1.0]),
        ("fibrosis", "share_of_cortex", [0.3, 0.2, 0.4]),
        ("fibrosis", "share_of_cortex", [0.3, 0.6, 1.4]),
        ("glomerulus", "n", [4.0, 3.0, 9.0]),
    ],
)
def test_a_range_that_cannot_be_one_is_refused(tmp_path: Path, structure, field, ends) -> None:
    (place,) = write_outlines(tmp_path, [outlined_slide("s1")])
    path = place / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary["structures"][structure][field] = ends
    path.write_text(json.dumps(summary).replace("Infinity", "1e999"), encoding="utf-8")
    with pytest.raises(GlomerulabError, match="damaged") as caught:
        read_case_structures(tmp_path, {"s1"})
    assert field in caught.value.message


def test_a_summary_without_the_area_of_either_is_refused(tmp_path: Path) -> None:
    write_outlines(tmp_path, [outlined_slide("s1", without=["atrophic_tubule_or_fibrosis"])])
    with pytest.raises(GlomerulabError, match="lacks atrophic_tubule_or_fibrosis"):
        read_case_structures(tmp_path, {"s1"})


def test_a_case_is_graded_by_the_outlines_of_its_slides(folder: CaseFolder, tmp_path) -> None:
    slide_ids = {call.slide_id for call in folder.calls}
    outlines = tmp_path / "outlines"
    write_outlines(outlines, [outlined_slide(one, fibrosis=0.6) for one in slide_ids if one])
    for case in build_cases(folder, structures=outlines):
        grades = {
            item.item.id: item.grade and item.grade.grade
            for rules in case.summary.rules
            for item in rules.items
        }
        assert grades["T"] == "T2"
        assert grades["ci"] == "ci3"
    assert all(case.structures is None for case in build_cases(folder))


def test_the_tables_have_the_columns_of_segment() -> None:
    from glomerulab.structures.write import COLUMNS

    assert {"structure", "equivalent_diameter_um", "certainty"} <= set(COLUMNS)
