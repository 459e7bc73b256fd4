import re
from dataclasses import replace

import pytest

from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import Note, read_case_folder
from glomerulab.cases.corrections import add_correction
from glomerulab.i18n.catalogue import catalogue
from glomerulab.reports.case.model_rows import model_rows
from glomerulab.reports.case.view import case_view, colour_of
from tests.support.cases import PAPER, WITH_GLOBAL, case, one_call, write_case


def test_headline_counts_glomeruli_and_not_images(folder) -> None:
    view = case_view(build_cases(folder)[0], "en")
    assert view.headline.startswith("5 glomeruli: 2 normal")
    assert "6 images on 2 slides" in view.summary[0]
    assert "on several sections" in view.summary[1]


def test_a_page_shows_the_warnings(folder) -> None:
    titles = [one.title for one in case_view(build_cases(folder)[0], "en").warnings]
    assert titles[:3] == [
        "The model was trained on synthetic images",
        "2 glomeruli need review",
        "Fewer than 25 glomeruli",
    ]


def test_a_changed_call_shows_both_labels_and_needs_no_review(folder) -> None:
    add_correction(folder, "c", labels=["normal"], by="Dr Li", reason="sharp enough")
    shown = {one.call.image_id: one for one in case_view(build_cases(folder)[0], "en").images}
    assert shown["c"].group == "Normal"
    assert shown["c"].model_labels == "Segmental sclerosis"
    assert "Dr Li" in shown["c"].correction
    assert shown["c"].review_reasons == ()
    assert shown["b"].review_reasons == ("the model is uncertain between labels",)


def test_a_confirmed_call_is_distinguished_from_a_changed_one(folder) -> None:
    add_correction(folder, "c", labels=["fsg"], by="Dr Li", reason="sharp enough")
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells")
    shown = {one.call.image_id: one for one in case_view(build_cases(folder)[0], "en").images}
    assert (shown["c"].group, shown["c"].model_labels) == ("Segmental sclerosis",) * 2
    assert not shown["c"].is_changed
    assert shown["c"].review_reasons == ()
    assert shown["b"].is_changed


def test_items_without_a_grade_are_listed_separately(folder) -> None:
    mest = case_view(build_cases(folder)[0], "en").rules[1]
    assert [row.item for row in mest.rows] == ["M", "S", "C"]
    assert [row.item for row in mest.not_assessed] == ["E", "T"]
    assert mest.too_few.endswith("5 < 8")


def test_labels_have_colours_of_their_own() -> None:
    ids = PAPER.label_ids
    colours = {colour_of(frozenset({key}), ids) for key in ids}
    assert len(colours | {colour_of(None, ids), colour_of(frozenset(ids[1:]), ids)}) == 6


def test_chinese_pages_are_chinese(folder) -> None:
    view = case_view(build_cases(folder)[0], "zh")
    assert view.headline.startswith("5个肾小球")
    assert view.rules[1].name == "MEST-C 类似评分（牛津）"


def test_proposed_regions_are_warned_of_at_adequacy_only(folder) -> None:
    first = replace(folder.calls[0], is_proposed=True)
    proposed = replace(folder, calls=(first, *folder.calls[1:]))
    for language, expected in (("en", "proposed by a detector"), ("zh", "检测器")):
        view = case_view(build_cases(proposed)[0], language)
        assert any(expected in one.title for one in view.warnings)
        adequacy = next(rule for rule in view.rules if "Banff" in rule.name)
        assert any(expected in caveat for caveat in adequacy.warnings)
        others = [rule for rule in view.rules if rule is not adequacy]
        assert not any(expected in text for rule in others for text in rule.warnings)
    drawn = case_view(build_cases(folder)[0], "en")
    assert not any("detector" in one.title for one in drawn.warnings)


def view_of(tmp_path, calls, taxonomy=WITH_GLOBAL, language="en"):
    write_case(tmp_path, calls, taxonomy=taxonomy)
    return case_view(build_cases(read_case_folder(tmp_path))[0], language)


def test_a_share_names_its_finding_if_the_item_does_not(tmp_path) -> None:
    calls = case((4, "normal"), (3, "cgn"), (2, "gs"), (1, "fsg"), taxonomy=WITH_GLOBAL)
    for language, expected in (
        (
            "en",
            (
                "Global sclerosis: 2 / 10 (20 %); Normal glomerulus: 4 / 10 (40 %); "
                "Cellular crescent: 3 / 10 (30 %)"
            ),
        ),
        ("zh", "球性硬化：2 / 10 (20 %)；正常肾小球：4 / 10 (40 %)；细胞性新月体：3 / 10 (30 %)"),
    ):
        shares = {
            row.item: row.share
            for rule in view_of(tmp_path, calls, language=language).rules
            for row in rule.rows
        }
        assert shares["class"] == expected
        assert shares["C"] == "3 / 8 (37.5 %)"
        assert shares["adequacy"] == "10"


def test_possible_grades_are_joined_by_or(tmp_path) -> None:
    calls = [one_call("x", "cgn", either="cgn+normal", taxonomy=WITH_GLOBAL)]
    for language, expected in (("en", "C0 or C2"), ("zh", "C0 或 C2")):
        rows = view_of(tmp_path, calls, language=language).rules[1].rows
        assert {row.item: row.possible for row in rows}["C"] == expected


def test_items_without_a_grade_show_possible_grades(tmp_path) -> None:
    calls = [one_call(f"x{n}", "gs", either="gs+cgn", taxonomy=WITH_GLOBAL) for n in range(8)]
    rows = {row.item: row for row in view_of(tmp_path, calls).rules[1].not_assessed}
    assert (rows["C"].grade, rows["C"].possible) == ("", "C2")
    assert rows["T"].possible == ""


def test_the_gallery_counts_images_and_those_on_several_sections(folder) -> None:
    for language, headings, expected in (
        (
            "en",
            {
                "Normal": "3 images, 1 of glomeruli on several sections",
                "To review": "2 images",
            },
            "Glomerulus 1, also on slide s1; counted as: Crescent",
        ),
        (
            "zh",
            {"正常肾小球": "3 幅图像，其中 1 幅的肾小球出现在多张切片上", "待复核": "2 幅图像"},
            "肾小球 1，亦见于切片 s1；计为：新月体形成",
        ),
    ):
        view = case_view(build_cases(folder)[0], language)
        assert headings.items() <= {one.name: one.n_images for one in view.groups}.items()
        shared = {one.call.image_id: one.other_sections for one in view.images}
        assert (shared["a2"], shared["b"]) == (expected, "")


def test_the_number_of_glomeruli_has_a_range_too(folder) -> None:
    for language, expected in (("en", "Glomeruli in all"), ("zh", "肾小球总数")):
        first = case_view(build_cases(folder)[0], language).labels[0]
        assert (first.name, first.number, first.range, first.by_model) == (
            expected,
            "5",
            "4 – 5",
            "5",
        )


def test_a_rule_set_warns_that_there_may_be_too_few_glomeruli(tmp_path) -> None:
    calls = case((7, "normal"))
    calls.append(one_call("x", "normal", reasons=("out_of_distribution",)))
    for language, expected in (("en", "the source requires: 7 < 8"), ("zh", "标准的要求：7 < 8")):
        mest = view_of(tmp_path, calls, PAPER, language).rules[1]
        assert mest.too_few.endswith(expected)
    assert view_of(tmp_path, case((8, "normal")), PAPER).rules[1].too_few == ""


def test_crops_without_slide_count_no_slide(tmp_path) -> None:
    calls = [one_call("x", slide=""), one_call("y", slide="")]
    assert view_of(tmp_path, calls, PAPER).summary[0].startswith("2 images; 0 glomeruli")
    assert view_of(tmp_path, calls, PAPER, "zh").summary[0].startswith("2 幅图像")


TERMS = re.compile(  # names, signs and citations that stay as they are in a Chinese report
    r"`[^`]*`|MEST-C|ISN/RPS|Banff|Dice|ANCA|IgA|Berden|H-Grade|softmax|glomerulab|improved_seresnet50|Wilson|Grad-CAM|PAS|III"
    r"|PDF| review|\b(?:overrides|failures|predictions)\.csv|case\.json"
)


def test_both_languages_have_the_same_rows(folder) -> None:
    english, chinese = (model_rows(folder.facts, language) for language in ("en", "zh"))
    assert len(english) == len(chinese)
    for (_, one), (_, other) in zip(english, chinese, strict=True):
        numbers = [set(re.findall(r"\d+(?:\.\d+)?", text)) for text in (one, other)]
        assert numbers[0] == numbers[1]


def test_the_model_card_states_thresholds_and_limits(folder) -> None:
    rows = dict(model_rows(folder.facts, "en"))
    assert rows["Unlike the training images"].startswith("distance above 21.50")
    assert rows["Temperature"] == "1.30, fitted on 120 validation images"
    assert "any decision about a patient" in rows["Not for"]


@pytest.mark.parametrize("has_notes", [False, True])
def test_no_english_sentence_is_left_in_a_chinese_report(folder, has_notes) -> None:
    """Every text of the program is in Chinese: English words are an untranslated rest."""
    notes = (Note(en="Crops were judged.", zh="图像未经归一化。"),) if has_notes else ()
    model = folder.facts.model.model_copy(update={"test_summary_zh": "120 幅中 101 幅正确"})
    facts = folder.facts.model_copy(update={"notes": notes, "model": model})
    case = build_cases(type(folder)(folder.folder, facts, folder.calls))[0]
    view = case_view(case, "zh")
    texts = [re.sub(r"\{\w+\}", "", text) for text in catalogue("zh", "case").values()]
    expected = [view.title, view.headline, *view.summary, *texts]
    expected += [text for one in view.warnings for text in (one.title, one.text)]
    for rule in view.rules:
        expected += [rule.name, rule.note, rule.too_few, *rule.warnings]
        for row in (*rule.rows, *rule.not_assessed):
            expected += [row.name, row.grade, row.possible, row.labels, row.reason]
    expected += [row.name for row in view.labels]
    expected += [text for row in view.model for text in row]
    expected += [text for one in view.images for text in (one.group, *one.review_reasons)]
    left = [text for text in expected if re.search(r"[A-Za-z]{3,}", TERMS.sub("", text))]
    # The image id and the hash of the weights are not translated.
    assert [text for text in left if "训练记录" not in text] == []


def test_what_is_to_be_reviewed_comes_first_and_leaves_once_it_is_settled(folder) -> None:
    view = case_view(build_cases(folder)[0], "en")
    first, *others = view.groups
    assert first.is_unsettled
    assert {one.call.image_id for one in first.members} == {"b", "c"}
    assert not any(one.review_reasons for group in others for one in group.members)
    assert len(view.images) == sum(len(group.members) for group in view.groups)
    assert {one.group: one.colour for one in view.images} == dict(view.legend)
    for image in ("b", "c"):
        add_correction(folder, image, labels=["normal"], by="Dr Li", reason="seen")
    settled = case_view(build_cases(folder)[0], "en")
    assert not any(group.is_unsettled for group in settled.groups)
    assert "last corrected" in settled.dates
