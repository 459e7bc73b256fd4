import string

import pytest

from glomerulab.evaluation.figures.language import CHINESE
from glomerulab.reports.run.figure_captions import CAPTIONS, figure_text


def _fields(text: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(text) if field}


@pytest.mark.parametrize("name", CAPTIONS)
def test_a_figure_has_title_and_caption_in_both_languages(name):
    english, chinese = (CAPTIONS[name][language] for language in ("en", "zh"))
    assert english.title.isascii() or "–" in english.title
    assert any("\u4e00" <= letter <= "\u9fff" for letter in chinese.title)
    assert any("\u4e00" <= letter <= "\u9fff" for letter in chinese.caption)
    assert _fields(english.caption) == _fields(chinese.caption)


def test_what_is_drawn_is_named_in_the_caption():
    text = figure_text("decision_curves", "zh", which=CHINESE["as trained"])
    assert text.caption.endswith("所用概率：原始输出。")
