from glomerulab.calls import GlomerulusCall, merged_readings, possible_readings
from glomerulab.taxonomy import Label, Taxonomy, load_taxonomy

PAPER = load_taxonomy("paper")


def call(called="normal", *, states=None, reasons=()):
    states = dict.fromkeys(PAPER.label_ids, "absent") | {called: "present"} | (states or {})
    return GlomerulusCall(
        "i1", "s1", "p1", "g1", "PAS", dict.fromkeys(PAPER.label_ids, 0.25),
        frozenset({called}), states, reasons,
    )  # fmt: skip


def sets(*names):
    return frozenset(frozenset(name.split("+")) for name in names)


def test_a_certain_call_has_one_reading() -> None:
    assert possible_readings(call("cgn"), PAPER, head="softmax") == sets("cgn")


def test_the_conformal_set_gives_the_readings_of_a_softmax_head() -> None:
    unsure = call("mspgn", states={"mspgn": "either", "normal": "either"}, reasons=("uncertain",))
    assert possible_readings(unsure, PAPER, head="softmax") == sets("mspgn", "normal")


def test_under_sigmoid_unsure_labels_combine_but_never_against_an_exclusion() -> None:
    unsure = call("cgn", states={"fsg": "either", "normal": "either"}, reasons=("uncertain",))
    assert possible_readings(unsure, PAPER, head="sigmoid") == sets("cgn", "cgn+fsg")


def test_an_image_that_cannot_be_trusted_may_show_anything() -> None:
    blurred = call("cgn", reasons=("out_of_focus",))
    assert possible_readings(blurred, PAPER, head="softmax") == sets(*PAPER.label_ids)


def test_an_image_unlike_all_others_may_be_no_glomerulus() -> None:
    strange = call("cgn", reasons=("out_of_distribution",))
    assert None in possible_readings(strange, PAPER, head="softmax")
    assert None not in possible_readings(call("cgn"), PAPER, head="softmax")


def test_a_lesion_on_one_section_is_a_lesion_of_the_glomerulus() -> None:
    assert merged_readings([sets("normal"), sets("cgn")], PAPER) == sets("cgn")
    assert merged_readings([sets("fsg"), sets("cgn")], PAPER) == sets("fsg+cgn")


def test_doubts_on_two_sections_multiply() -> None:
    joined = merged_readings([sets("normal", "mspgn"), sets("normal", "cgn")], PAPER)
    assert joined == sets("normal", "mspgn", "cgn", "mspgn+cgn")


def test_a_section_that_may_show_no_glomerulus_leaves_the_word_to_the_other() -> None:
    assert merged_readings([frozenset({None}), sets("cgn")], PAPER) == sets("cgn")


def test_labels_that_exclude_each_other_leave_either_possible() -> None:
    both = Taxonomy(
        "t", (Label(id="a", name="A", excludes=("b",)), Label(id="b", name="B", excludes=("a",)))
    )
    assert merged_readings([sets("a"), sets("b")], both) == sets("a", "b")


def test_sections_without_any_label_stay_without_and_are_not_lost() -> None:
    none = frozenset[str]()
    assert merged_readings([frozenset({none})] * 2, PAPER) == {none}
    doubtful = frozenset({none, frozenset({"cgn"})})
    assert merged_readings([doubtful] * 2, PAPER) == {none, frozenset({"cgn"})}
