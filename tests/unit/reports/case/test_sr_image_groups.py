from dataclasses import replace

import pytest

from glomerulab.cases.add_corrections import add_correction
from glomerulab.cases.case import build_cases
from glomerulab.reports.case.sr_image_groups import image_groups
from tests.support.sr_groups import images_of, numbers_of, said_of, texts_of


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
    assert said_of(second)["Shown by this image"] == ["Normal"]
    assert said_of(second)["Glomerulus counted as"] == ["Crescent"]  # its other section shows one


def test_what_a_person_called_no_glomerulus_is_none_in_its_group(folder) -> None:
    add_correction(folder, "b", labels=["not_a_glomerulus"], by="Dr Li", reason="a vessel")
    add_correction(folder, "a2", labels=["not_a_glomerulus"], by="Dr Li", reason="torn")
    found = images(folder)
    for name in ("b", "a2"):
        assert found[name].finding_type.meaning == "not a glomerulus"
        assert said_of(found[name])["Shown by this image"] == ["not a glomerulus"]
        assert "Glomerulus counted as" not in said_of(found[name])
        assert found[name].tracking_identifier == f"no glomerulus: {name}"
    assert found["a1"].tracking_uid != found["a2"].tracking_uid


def test_an_image_tells_what_the_doubts_leave_open(folder) -> None:
    found = images(folder)
    name = "Doubts leave open, of the whole glomerulus"
    assert said_of(found["b"])[name] == ["Normal", "Mesangial proliferation"]
    assert "not a glomerulus" in said_of(found["c"])[name]
    assert name not in said_of(found["d"])


def test_a_changed_call_stands_beside_what_counts(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells in Bowman's space")
    group = images(folder)["b"]
    said = said_of(group)
    assert said["Shown by this image"] == said["Glomerulus counted as"] == ["Crescent"]
    assert said["Called by the model"] == ["Mesangial proliferation"]
    assert "Dr Li" in texts_of(group[0])["Changed by a person"][0]


def test_a_confirmed_call_is_named_so(folder) -> None:
    add_correction(folder, "c", labels=["fsg"], by="Dr Li", reason="sharp enough")
    said = {name: texts_of(group[0]) for name, group in images(folder).items()}
    assert "sharp enough" in said["c"]["Confirmed by a person"][0]
    assert [name for name, one in said.items() if "Confirmed by a person" in one] == ["c"]
    assert not any("Changed by a person" in one for one in said.values())


def test_findings_are_coded_by_hpo_beside_their_probabilities(folder) -> None:
    group = images(folder)["a1"]
    said = group.get_qualitative_evaluations()[0].value
    assert (said.value, said.scheme_designator, said.meaning) == ("HP:0033316", "99HPO", "Crescent")
    assert numbers_of(group)["Probability of: Crescent"] == pytest.approx(0.9)


def test_what_a_person_has_settled_is_referred_no_more_and_proposals_say_so(folder) -> None:
    assert "Refer to a human" in said_of(images(folder)["c"])
    add_correction(folder, "c", labels=["fsg"], by="Dr Li", reason="it is one")
    proposed = replace(folder, calls=tuple(replace(one, is_proposed=True) for one in folder.calls))
    said = said_of(images(proposed)["c"])
    assert "Refer to a human" not in said
    assert said["Region"] == ["Proposed by a detector, drawn by no person"]
