import re

import pytest

from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import Note
from glomerulab.reports.case.model_rows import model_rows
from glomerulab.reports.case.view import case_view
from glomerulab.reports.case.words import words

TERMS = re.compile(  # names, signs and citations that stay as they are in a Chinese report
    r"MEST-C|ISN/RPS|Banff|ANCA|IgA|Berden|H-Grade|softmax|glomerulab|improved_seresnet50|Wilson|Grad-CAM|PAS|III"
    r"|PDF| review"
)


def test_both_languages_say_the_same_rows(folder) -> None:
    english, chinese = (model_rows(folder.facts, language) for language in ("en", "zh"))
    assert len(english) == len(chinese)
    for (_, one), (_, other) in zip(english, chinese, strict=True):
        numbers = [set(re.findall(r"\d+(?:\.\d+)?", text)) for text in (one, other)]
        assert numbers[0] == numbers[1]


def test_the_card_states_thresholds_and_what_it_is_not_for(folder) -> None:
    rows = dict(model_rows(folder.facts, "en"))
    assert rows["Unlike the training images"].startswith("distance above 21.50")
    assert rows["Temperature"] == "1.30, fitted on 120 validation images"
    assert "any decision about a patient" in rows["Not for"]


@pytest.mark.parametrize("has_notes", [False, True])
def test_no_english_sentence_is_left_in_a_chinese_report(folder, has_notes) -> None:
    """What the program says is Chinese: two English words in a row are a sentence left over."""
    notes = (Note(en="Crops were judged.", zh="图像未经归一化。"),) if has_notes else ()
    model = folder.facts.model.model_copy(update={"test_summary_zh": "120 幅中 101 幅正确"})
    facts = folder.facts.model_copy(update={"notes": notes, "model": model})
    case = build_cases(type(folder)(folder.folder, facts, folder.calls))[0]
    view = case_view(case, "zh")
    said = [view.title, view.headline, *view.summary, *words("zh").values()]
    said += [text for one in view.warnings for text in (one.title, one.text)]
    for rule in view.rules:
        said += [rule.name, rule.note, rule.too_few, *rule.caveats]
        for row in (*rule.rows, *rule.not_assessed):
            said += [row.name, row.grade, row.possible, row.rests_on, row.reason]
    said += [row.name for row in view.labels]
    said += [text for row in view.model for text in row]
    said += [text for one in view.shown for text in (one.group, *one.reasons)]
    left = [text for text in said if re.search(r"[A-Za-z]{3,}", TERMS.sub("", text))]
    # The image's own id and the hash of the weights are no words of ours.
    assert [text for text in left if "训练记录" not in text] == []
