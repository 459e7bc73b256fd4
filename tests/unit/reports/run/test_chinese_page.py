"""Pages of results in Chinese: no English sentence is left in what a reader reads."""

import math
import re
from dataclasses import replace

import pytest

from glomerulab.evaluation.comparison import ModelCost
from glomerulab.i18n.sentences import translate_filled
from glomerulab.reports.cohort import CohortFacts, write_cohort_page
from glomerulab.reports.run.comparison import write_comparison
from glomerulab.reports.run.report import write_run_report
from glomerulab.reports.run.stain_check import write_stain_check
from tests.support.result_pages import stain_check
from tests.support.run_folders import RunRecipe, write_run

ENGLISH = re.compile(r"(?:\b[A-Za-z][a-z]+\b[ ,]+){3}")
"""Four English words in a row."""


def _texts(page: str) -> list[str]:
    page = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    page = re.sub(r'<(tbody|pre|p)[^>]* lang="en">.*?</\1>', "", page, flags=re.DOTALL)
    page = re.sub(r'<(tbody|pre|p) lang="en">.*?</\1>', "", page, flags=re.DOTALL)
    page = re.sub(r"<code>[^<]*</code>", "", page)
    return [text.strip() for text in re.findall(r">([^<>]+)<", page)]


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_the_page_is_chinese_as_a_whole(head: str, tmp_path) -> None:
    run = write_run(tmp_path / "run", RunRecipe(n_patients=12, head=head))
    page = write_run_report(run, language="zh").html_path.read_text("utf-8")
    assert '<html lang="zh">' in page
    assert [text for text in _texts(page) if ENGLISH.search(text)] == []
    assert "`" not in "".join(_texts(page))
    for text in ("请先阅读", "准确率", "模型卡", "校准"):
        assert text in page


def test_a_comparison_is_chinese_as_a_whole(tmp_path) -> None:
    recipe = RunRecipe(n_patients=12)
    first = write_run(tmp_path / "first", recipe)
    second = write_run(tmp_path / "second", RunRecipe(n_patients=12, skill=0.3))
    cost = ModelCost(224, 2_000_000, 3_000_000_000, math.nan, 40.0, 8_000_000, "a laptop")
    costs = {"first": cost, "second": cost}
    report = write_comparison([first, second], tmp_path / "out", costs=costs, language="zh")
    page = report.html_path.read_text("utf-8")
    assert '<html lang="zh">' in page
    assert [text for text in _texts(page) if ENGLISH.search(text)] == []
    for text in ("的比较", "仅前者判对", "得分与开销", "无轮次"):
        assert text in page


def test_a_stain_check_is_chinese_as_a_whole(tmp_path) -> None:
    check = stain_check(tmp_path)
    poor = replace(
        check,
        parts=(
            *check.parts,
            replace(
                check.parts[0],
                stain="PAS",
                before=None,
                prediction=None,
                why_no_prediction="fewer than two values of slide_id have two patients or more",
            ),
        ),
        unreadable=("x.png: 3",),
    )
    several = replace(check, parts=(check.parts[0], replace(check.parts[0], stain="PAS")))
    for number, one in enumerate((check, poor, several)):
        out = tmp_path / f"out{number}"
        done = write_stain_check(one, out, is_synthetic=True, language="zh")
        page = done.html_path.read_text("utf-8")
        assert '<html lang="zh">' in page
        assert [text for text in _texts(page) if ENGLISH.search(text)] == []
        assert ENGLISH.search(" ".join(re.findall(r'(?:alt|aria-label)="([^"]*)"', page))) is None
        for text in ("染色检查", "平衡准确率", "归一化前后及参考图像"):
            assert text in page
    assert (
        "HE 归一化前 0.90、归一化后 0.40（随机水平最高 0.45）；PAS 归一化前 0.90、归一化后" in page
    )


def test_the_page_of_a_cohort_is_chinese_as_a_whole(tmp_path) -> None:
    facts = CohortFacts(
        created="2026-11-30T10:00:00",
        is_synthetic=True,
        n_cases=1200,
        n_done=1190,
        n_failed=7,
        n_images=31_000,
        n_glomeruli=30_000,
        n_referred=900,
        n_cases_referred=1,
        n_failures=12,
        reasons=(("坏文件", 7),),
        n_other_reasons=2,
        grades={"Berden (ANCA): Class": (("", 4), ("?", 5), ("focal", 6)), "我的": (("X", 1),)},
        slowest=(("p1", "p1", 20.5),),
    )
    write_cohort_page(facts, tmp_path / "zh.html", language="zh")
    page = (tmp_path / "zh.html").read_text("utf-8")
    assert [text for text in _texts(page) if ENGLISH.search(text)] == []
    assert "1,200 例中 1190 例完成" in page
    assert "Berden 分型（ANCA）：分型" in page
    assert "未评估：4、几种皆可能：5、局灶型：6" in page
    write_cohort_page(facts, tmp_path / "en.html")
    assert "in 31,000 images. A person must look at 900 images, in 1 case." in (
        tmp_path / "en.html"
    ).read_text("utf-8")


def test_filled_values_keep_their_place() -> None:
    shown = "A (12 images of 4 patients), B (8 images of 5 patients)"
    text = f"Fewer than 30 images or 5 patients show: {shown}."
    assert translate_filled(text, "en", "evaluation") == text
    chinese = translate_filled(text, "zh", "evaluation", names=lambda: {"A": "甲", "B": "乙"})
    assert chinese.startswith("以下类别少于 30 幅图像或 5 名患者：甲（4 名患者的 12 幅图像）")
    assert "乙（5 名患者的 8 幅图像）" in chinese
    assert translate_filled("Nobody knows this sentence.", "zh", "evaluation") == (
        "Nobody knows this sentence."
    )
