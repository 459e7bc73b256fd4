from dataclasses import replace

from glomerulab.report.add_overrides import add_override
from glomerulab.report.case_view import case_view, colour_of
from glomerulab.report.reported_case import reported_cases
from tests.cases import PAPER


def test_headline_counts_glomeruli_and_not_images(folder) -> None:
    view = case_view(reported_cases(folder)[0], "en")
    assert view.headline.startswith("5 glomeruli: 2 normal")
    assert "6 images on 2 slides" in view.summary[0]
    assert "on several sections" in view.summary[1]


def test_warnings_name_what_makes_results_doubtful(folder) -> None:
    titles = [one.title for one in case_view(reported_cases(folder)[0], "en").warnings]
    assert titles[:3] == [
        "The model was trained on synthetic images",
        "2 glomeruli not settled",
        "Fewer than 25 glomeruli",
    ]


def test_a_changed_call_shows_both_and_is_no_longer_referred(folder) -> None:
    add_override(folder, "c", labels=["normal"], by="Dr Li", reason="sharp enough")
    shown = {one.call.image_id: one for one in case_view(reported_cases(folder)[0], "en").shown}
    assert shown["c"].group == "Normal"
    assert shown["c"].original == "Segmental sclerosis"
    assert "Dr Li" in shown["c"].said
    assert shown["c"].reasons == ()
    assert shown["b"].reasons == ("the model cannot settle on one answer",)


def test_a_confirmed_call_is_told_apart_from_a_changed_one(folder) -> None:
    add_override(folder, "c", labels=["fsg"], by="Dr Li", reason="sharp enough")
    add_override(folder, "b", labels=["cgn"], by="Dr Li", reason="cells")
    shown = {one.call.image_id: one for one in case_view(reported_cases(folder)[0], "en").shown}
    assert (shown["c"].group, shown["c"].original) == ("Segmental sclerosis",) * 2
    assert not shown["c"].is_changed
    assert shown["c"].reasons == ()
    assert shown["b"].is_changed


def test_what_was_not_assessed_is_apart_from_the_results(folder) -> None:
    mest = case_view(reported_cases(folder)[0], "en").rules[1]
    assert [row.item for row in mest.rows] == ["M", "S", "C"]
    assert [row.item for row in mest.not_assessed] == ["E", "T"]
    assert mest.too_few.endswith("5 < 8")


def test_labels_have_colours_of_their_own() -> None:
    ids = PAPER.label_ids
    colours = {colour_of(frozenset({key}), ids) for key in ids}
    assert len(colours | {colour_of(None, ids), colour_of(frozenset(ids[1:]), ids)}) == 6


def test_chinese_pages_are_chinese(folder) -> None:
    view = case_view(reported_cases(folder)[0], "zh")
    assert view.headline.startswith("5个肾小球")
    assert view.rules[1].name == "MEST-C 类似评分（牛津）"


def test_regions_of_a_detector_are_told_beside_adequacy_and_nowhere_else(folder) -> None:
    first = replace(folder.calls[0], is_proposed=True)
    proposed = replace(folder, calls=(first, *folder.calls[1:]))
    for language, said in (("en", "proposed by a detector"), ("zh", "检测器")):
        view = case_view(reported_cases(proposed)[0], language)
        assert any(said in one.title for one in view.warnings)
        adequacy = next(rule for rule in view.rules if "Banff" in rule.name)
        assert any(said in caveat for caveat in adequacy.caveats)
        others = [rule for rule in view.rules if rule is not adequacy]
        assert not any(said in text for rule in others for text in rule.caveats)
    plain = case_view(reported_cases(folder)[0], "en")
    assert not any("detector" in one.title for one in plain.warnings)
