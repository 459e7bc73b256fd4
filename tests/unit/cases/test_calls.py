from glomerulab.cases.calls import (
    CallUncertainty,
    GlomerulusCall,
    call_uncertainty,
    merge_label_sets,
    possible_label_sets,
)
from glomerulab.taxonomy import Label, Taxonomy, load_taxonomy

PAPER = load_taxonomy("paper")


def call(called="normal", *, states=None, reasons=()):
    states = dict.fromkeys(PAPER.label_ids, "absent") | {called: "present"} | (states or {})
    return GlomerulusCall(
        "i1",
        "s1",
        "p1",
        "g1",
        "PAS",
        dict.fromkeys(PAPER.label_ids, 0.25),
        frozenset({called}),
        states,
        reasons,
    )


def sets_of(call, *, head):
    return possible_label_sets(call_uncertainty(call, PAPER, head=head), PAPER)


def sets(*names):
    return frozenset(frozenset(name.split("+")) for name in names)


def test_a_certain_call_has_one_label_set() -> None:
    assert sets_of(call("cgn"), head="softmax") == sets("cgn")


def test_the_conformal_set_gives_the_label_sets_of_a_softmax_head() -> None:
    unsure = call("mspgn", states={"mspgn": "either", "normal": "either"}, reasons=("uncertain",))
    assert sets_of(unsure, head="softmax") == sets("mspgn", "normal")


def test_under_sigmoid_uncertain_labels_combine_without_breaking_an_exclusion() -> None:
    unsure = call("cgn", states={"fsg": "either", "normal": "either"}, reasons=("uncertain",))
    assert sets_of(unsure, head="sigmoid") == sets("cgn", "cgn+fsg")


def test_an_image_out_of_focus_may_have_any_label() -> None:
    blurred = call("cgn", reasons=("out_of_focus",))
    assert sets_of(blurred, head="softmax") == sets(*PAPER.label_ids)


def test_an_image_unlike_all_others_may_be_no_glomerulus() -> None:
    strange = call("cgn", reasons=("out_of_distribution",))
    assert None in sets_of(strange, head="softmax")
    assert None not in sets_of(call("cgn"), head="softmax")


def test_a_lesion_on_one_section_is_a_lesion_of_the_glomerulus() -> None:
    assert merge_label_sets([sets("normal"), sets("cgn")], PAPER) == sets("cgn")
    assert merge_label_sets([sets("fsg"), sets("cgn")], PAPER) == sets("fsg+cgn")


def test_doubts_on_two_sections_multiply() -> None:
    joined = merge_label_sets([sets("normal", "mspgn"), sets("normal", "cgn")], PAPER)
    assert joined == sets("normal", "mspgn", "cgn", "mspgn+cgn")


def test_a_section_that_may_show_no_glomerulus_leaves_the_decision_to_the_other() -> None:
    assert merge_label_sets([frozenset({None}), sets("cgn")], PAPER) == sets("cgn")


def test_either_of_two_labels_that_exclude_each_other_is_possible() -> None:
    both = Taxonomy(
        "t", (Label(id="a", name="A", excludes=("b",)), Label(id="b", name="B", excludes=("a",)))
    )
    assert merge_label_sets([sets("a"), sets("b")], both) == sets("a", "b")


def test_sections_without_any_label_give_the_empty_label_set() -> None:
    none = frozenset[str]()
    assert merge_label_sets([frozenset({none})] * 2, PAPER) == {none}
    doubtful = frozenset({none, frozenset({"cgn"})})
    assert merge_label_sets([doubtful] * 2, PAPER) == {none, frozenset({"cgn"})}


def test_labels_that_exclude_each_other_are_uncertain_however_sure_the_model_is() -> None:
    torn = call("cgn", states={"normal": "present", "fsg": "present"})
    found = sets_of(torn, head="sigmoid")
    assert found == sets("cgn", "normal", "fsg", "cgn+fsg") | {frozenset()}


def test_a_call_of_labels_that_exclude_each_other_counts_as_on_two_sections() -> None:
    both = frozenset({frozenset({"normal", "cgn"})})
    assert merge_label_sets([both], PAPER) == sets("cgn")


def test_twenty_uncertain_labels_are_not_enumerated() -> None:
    many = Taxonomy("many", tuple(Label(id=f"l{n}", name=f"L{n}") for n in range(20)))
    anything = CallUncertainty(
        frozenset(),
        frozenset(),
        frozenset(many.label_ids),
        is_single_label=False,
        may_be_no_glomerulus=False,
    )
    assert possible_label_sets(anything, many) is None
    assert merge_label_sets([None, sets("l1")], many) is None


def test_a_correction_leaves_nothing_uncertain() -> None:
    for labels in (None, frozenset({"cgn", "fsg"})):
        assert possible_label_sets(CallUncertainty.corrected(labels), PAPER) == {labels}
