import pytest

from glomerulab.cases.add_corrections import add_correction
from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import read_case_folder
from glomerulab.reports.case.sr_case_groups import case_groups
from glomerulab.taxonomy import Label, Taxonomy
from tests.support.cases import one_call, write_case
from tests.support.sr_groups import numbers_of, question_of, said_of, texts_of

MEST = "MEST-C-like (Oxford) 1.0: "


def groups(folder) -> list:
    return case_groups(build_cases(folder)[0])


def test_counts_have_denominators_shares_intervals_and_ranges(folder) -> None:
    group = groups(folder)[0]
    counts = numbers_of(group)
    assert counts["Fewest glomeruli that the doubts allow"] == 4
    assert counts["Most glomeruli that the doubts allow"] == 5
    name = "Mesangial proliferation"
    assert counts[f"Glomeruli in the denominator of: {name}"] == 5
    assert counts[f"Share of: {name}"] == 20
    assert counts[f"Share, low end (Wilson, 95 %), of: {name}"] == pytest.approx(3.62)
    assert counts[f"Share, high end (Wilson, 95 %), of: {name}"] == pytest.approx(62.45)
    assert counts[f"Fewest that the doubts allow of: {name}"] == 0
    assert counts[f"Most that the doubts allow of: {name}"] == 2
    units = {one.name.meaning: one.unit.value for one in group.get_measurements()}
    assert (units[f"Share of: {name}"], units["Glomeruli in all"]) == ("%", "1")


def test_counts_and_grades_tell_what_the_model_alone_had(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells")
    found = groups(folder)
    counts = numbers_of(found[0])
    assert counts["Number of: Crescent"] == 2
    assert counts["Number by the model alone of: Crescent"] == 1
    said = said_of(question_of(found, MEST + "Cellular"))
    assert (said["Grade"], said["Grade by the model alone"]) == (["C2"], ["C1"])


def test_each_question_tells_grade_doubts_numbers_and_labels(folder) -> None:
    group = question_of(groups(folder), MEST + "Segmental")
    said = said_of(group)
    assert said["Grade"] == ["S1"]
    assert said["Grade that the doubts allow too"] == ["S0"]
    assert said["Rests on the label"] == ["Segmental sclerosis"]
    assert numbers_of(group) == {
        "Glomeruli with a finding of the question": 1,
        "Glomeruli in the denominator": 5,
    }
    texts = texts_of(group[0])
    assert texts["Too few glomeruli"] == ["Only 5 of the 8 glomeruli that the source asks for."]
    assert any("global sclerosis" in one for one in texts["A pathologist's answer may differ"])
    assert "Trimarchi" in texts["Source of the rules"][0]


def test_what_was_not_assessed_is_told_with_its_reason(folder) -> None:
    for name, why in (("Tubular atrophy", "share of cortex"), ("Endocapillary", "no label")):
        group = question_of(groups(folder), MEST + name)
        assert said_of(group)["Grade"] == ["Not assessed"]
        assert why in texts_of(group[0])["Not assessed, because"][0]


def test_a_grade_has_one_code_whatever_the_doubts(folder) -> None:
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


def test_a_grade_that_rests_on_several_counts_tells_each(folder) -> None:
    group = question_of(groups(folder), "Berden (ANCA) 1.0")
    assert said_of(group)["Grade"] == ["mixed"]
    counts = numbers_of(group)
    assert counts["Glomeruli counted: Normal glomerulus"] == 2
    assert counts["Glomeruli counted: Cellular crescent"] == 1
    codes = [one.name.value for one in group.get_measurements()]
    assert "n_with/normal_glomerulus" in codes


def test_labels_named_like_counts_share_no_code_with_them(tmp_path) -> None:
    names = ("glomeruli", "a", "least_a", "images")
    labels = tuple(Label(id=name, name=f"Label {name}") for name in names)
    taxonomy = Taxonomy("odd", labels)
    calls = [one_call("i", "a", taxonomy=taxonomy)]
    case = build_cases(read_case_folder(write_case(tmp_path, calls, taxonomy=taxonomy)))[0]
    codes = [one.name.value for one in case_groups(case)[0].get_measurements()]
    assert len(set(codes)) == len(codes)
