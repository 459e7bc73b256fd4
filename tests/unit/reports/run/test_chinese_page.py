"""The page of an evaluation in Chinese: no English sentence is left in what a reader reads."""

import re

import pytest

from glomerulab.i18n.sentences import translate_filled
from glomerulab.reports.run.report import write_run_report
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
