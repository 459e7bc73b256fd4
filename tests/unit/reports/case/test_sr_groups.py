from dataclasses import replace

import pytest

from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import read_case_folder
from glomerulab.cases.corrections import add_correction
from glomerulab.reports.case.sr_groups import (
    case_groups,
    image_groups,
    label_code,
    label_evaluations,
    percent,
    text,
)
from glomerulab.slides.dicom_codes import own, uid
from glomerulab.taxonomy import Label, Taxonomy
from tests.support.cases import PAPER, one_call, write_case
from tests.support.sr_groups import images_of, numbers_of, question_of, texts_of, values_of

MEST = "MEST-C-like (Oxford) 1.0: "


def groups(folder) -> list:
    return case_groups(build_cases(folder)[0])


def test_counts_have_denominators_shares_intervals_and_ranges(folder) -> None:
    group = groups(folder)[0]
    counts = numbers_of(group)
    assert counts["Fewest glomeruli, given the uncertain ones"] == 4
    assert counts["Most glomeruli, given the uncertain ones"] == 5
    name = "Mesangial proliferation"
    assert counts[f"Glomeruli in the denominator of: {name}"] == 5
    assert counts[f"Share of: {name}"] == 20
    assert counts[f"Share, low end (Wilson, 95 %), of: {name}"] == pytest.approx(3.62)
    assert counts[f"Share, high end (Wilson, 95 %), of: {name}"] == pytest.approx(62.45)
    assert counts[f"Fewest, given the uncertain ones, of: {name}"] == 0
    assert counts[f"Most, given the uncertain ones, of: {name}"] == 2
    units = {one.name.meaning: one.unit.value for one in group.get_measurements()}
    assert (units[f"Share of: {name}"], units["Glomeruli in all"]) == ("%", "1")


def test_counts_and_grades_have_those_of_the_model(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells")
    found = groups(folder)
    counts = numbers_of(found[0])
    assert counts["Number of: Crescent"] == 2
    assert counts["Number by the model alone of: Crescent"] == 1
    values = values_of(question_of(found, MEST + "Cellular"))
    assert (values["Grade"], values["Grade by the model alone"]) == (["C2"], ["C1"])


def test_each_item_has_grade_possible_grades_counts_and_labels(folder) -> None:
    group = question_of(groups(folder), MEST + "Segmental")
    values = values_of(group)
    assert values["Grade"] == ["S1"]
    assert values["Other possible grade"] == ["S0"]
    assert values["Based on the label"] == ["Segmental sclerosis"]
    assert numbers_of(group) == {
        "Glomeruli with a finding of the question": 1,
        "Glomeruli in the denominator": 5,
    }
    texts = texts_of(group[0])
    assert texts["Too few glomeruli"] == ["Only 5 of the 8 glomeruli that the source requires."]
    assert any("global sclerosis" in one for one in texts["A pathologist's grade may differ"])
    assert "Trimarchi" in texts["Source of the rules"][0]


def test_an_item_without_a_grade_has_a_reason(folder) -> None:
    for name, why in (("Tubular atrophy", "share of cortex"), ("Endocapillary", "no label")):
        group = question_of(groups(folder), MEST + name)
        assert values_of(group)["Grade"] == ["Not assessed"]
        assert why in texts_of(group[0])["Not assessed, because"][0]


def test_a_grade_has_one_code_whatever_the_uncertainty(folder) -> None:
    found = []
    for _ in range(2):
        group = question_of(groups(folder), MEST + "Segmental")
        found += [
            (one.value.value, one.value.meaning)
            for one in group.get_qualitative_evaluations()
            if one.name.meaning == "Grade"
        ]
        add_correction(folder, "c", labels=["fsg"], by="Dr Li", reason="settled")
    assert found == [("mest_c_like/1.0/S/S1", "S1")] * 2


def test_a_grade_based_on_several_counts_has_each(folder) -> None:
    group = question_of(groups(folder), "Berden (ANCA) 1.0")
    assert values_of(group)["Grade"] == ["mixed"]
    counts = numbers_of(group)
    assert counts["Glomeruli counted: Normal glomerulus"] == 2
    assert counts["Glomeruli counted: Cellular crescent"] == 1
    codes = [one.name.value for one in group.get_measurements()]
    assert "n_with/normal_glomerulus" in codes


def test_labels_named_like_counts_have_codes_of_their_own(tmp_path) -> None:
    names = ("glomeruli", "a", "least_a", "images")
    labels = tuple(Label(id=name, name=f"Label {name}") for name in names)
    taxonomy = Taxonomy("odd", labels)
    calls = [one_call("i", "a", taxonomy=taxonomy)]
    case = build_cases(read_case_folder(write_case(tmp_path, calls, taxonomy=taxonomy)))[0]
    codes = [one.name.value for one in case_groups(case)[0].get_measurements()]
    assert len(set(codes)) == len(codes)


def images(folder) -> dict:
    return images_of(image_groups(build_cases(folder)[0]))


def test_the_images_of_a_glomerulus_are_tracked_as_one(folder) -> None:
    found = images(folder)
    first, second = found["a1"], found["a2"]
    assert first.tracking_uid == second.tracking_uid
    assert first.tracking_identifier == second.tracking_identifier == "glomerulus 1: g1"
    assert found["b"].tracking_identifier == "glomerulus 2: b"
    assert len({one.tracking_uid for one in found.values()}) == 5
    assert [texts_of(one[0])["Slide"] for one in (first, second)] == [["s1"], ["s2"]]
    assert first.finding_type.meaning == "Image of a glomerulus"
    (other,) = texts_of(second[0])["Other images of the glomerulus"]
    assert other == "glomerulus 1, also on s1, counted once"
    assert values_of(second)["Shown by this image"] == ["Normal"]
    assert values_of(second)["Glomerulus counted as"] == ["Crescent"]  # its other section shows one


def test_a_rejected_image_is_tracked_by_itself(folder) -> None:
    add_correction(folder, "b", labels=["not_a_glomerulus"], by="Dr Li", reason="a vessel")
    add_correction(folder, "a2", labels=["not_a_glomerulus"], by="Dr Li", reason="torn")
    found = images(folder)
    for name in ("b", "a2"):
        assert found[name].finding_type.meaning == "not a glomerulus"
        assert values_of(found[name])["Shown by this image"] == ["not a glomerulus"]
        assert "Glomerulus counted as" not in values_of(found[name])
        assert found[name].tracking_identifier == f"no glomerulus: {name}"
    assert found["a1"].tracking_uid != found["a2"].tracking_uid


def test_an_image_has_its_uncertain_labels(folder) -> None:
    found = images(folder)
    name = "Uncertain labels of the glomerulus"
    assert values_of(found["b"])[name] == ["Normal", "Mesangial proliferation"]
    assert "not a glomerulus" in values_of(found["c"])[name]
    assert name not in values_of(found["d"])


def test_a_changed_call_has_the_models_call_beside_it(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells in Bowman's space")
    group = images(folder)["b"]
    values = values_of(group)
    assert values["Shown by this image"] == values["Glomerulus counted as"] == ["Crescent"]
    assert values["Called by the model"] == ["Mesangial proliferation"]
    assert "Dr Li" in texts_of(group[0])["Changed by a person"][0]


def test_a_confirmed_call_is_named_confirmed(folder) -> None:
    add_correction(folder, "c", labels=["fsg"], by="Dr Li", reason="sharp enough")
    texts = {name: texts_of(group[0]) for name, group in images(folder).items()}
    assert "sharp enough" in texts["c"]["Confirmed by a person"][0]
    assert [name for name, one in texts.items() if "Confirmed by a person" in one] == ["c"]
    assert not any("Changed by a person" in one for one in texts.values())


def test_findings_are_coded_by_hpo_beside_their_probabilities(folder) -> None:
    group = images(folder)["a1"]
    code = group.get_qualitative_evaluations()[0].value
    assert (code.value, code.scheme_designator, code.meaning) == (
        "HP:0033316",
        "99HPO",
        "Crescent",
    )
    assert numbers_of(group)["Probability of: Crescent"] == pytest.approx(0.9)


def test_a_corrected_image_is_not_referred_and_a_proposal_is_marked(folder) -> None:
    assert "Needs review" in values_of(images(folder)["c"])
    add_correction(folder, "c", labels=["fsg"], by="Dr Li", reason="it is one")
    proposed = replace(folder, calls=tuple(replace(one, is_proposed=True) for one in folder.calls))
    values = values_of(images(proposed)["c"])
    assert "Needs review" not in values
    assert values["Region"] == ["Proposed by a detector, drawn by no person"]


def test_a_long_code_is_kept_and_its_meaning_is_cut() -> None:
    code = own("isn_rps_like/1.0/proportion", "Glomeruli " * 20)
    assert code.LongCodeValue == "isn_rps_like/1.0/proportion"
    assert "CodeValue" not in code
    assert len(code.meaning) == 64
    assert code.meaning.endswith("...")
    assert len(own("a", "肾" * 30).meaning.encode()) <= 64


def test_a_meaning_has_no_backslash_and_no_line_break() -> None:
    assert own("a", "one\\two\n three\x00").meaning == "one/two three\ufffd"


def test_a_label_without_code_gets_one_of_our_own() -> None:
    code = label_code(Label(id="scar", name="Scar"))
    assert (code.value, code.scheme_designator) == ("is/scar", "99GLOMERULAB")


def test_an_empty_label_set_has_a_code() -> None:
    values = [label_evaluations(own("a", "a"), one, PAPER)[0].value for one in (None, frozenset())]
    assert [one.value for one in values] == ["not_a_glomerulus", "none"]


def test_a_share_is_in_percent() -> None:
    found = percent("a", "a", 1 / 3)
    assert (found.value, found.unit.value) == (33.33, "%")


def test_a_text_is_not_truncated_and_has_no_control_characters() -> None:
    assert text("a", "a", "x" * 3000 + "\x1b").TextValue == "x" * 3000 + "\ufffd"


def test_names_that_read_alike_when_joined_have_other_uids() -> None:
    assert uid("a/b", "c") != uid("a", "b/c")
    assert uid("a") == uid("a")
