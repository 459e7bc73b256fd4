import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.cases.calls import CallUncertainty
from glomerulab.cases.counting import LabelClasses, group_glomeruli
from glomerulab.cases.grading import summarize_case
from glomerulab.cases.rules import BUILT_IN_RULE_SETS, load_rule_set
from glomerulab.taxonomy import Label, Taxonomy
from tests.support.cases import PAPER, one_call

EACH = tuple(frozenset({label_id}) for label_id in PAPER.label_ids)


def test_one_id_on_serial_sections_is_one_glomerulus() -> None:
    calls = [
        one_call("a", "normal", slide="s1", region="g7"),
        one_call("b", "cgn", slide="s2", region="g7"),
        one_call("c", "normal", slide="s2", region="g8"),
    ]
    glomeruli = group_glomeruli(calls, PAPER, head="softmax")
    assert [one.labels for one in glomeruli] == [frozenset({"cgn"}), frozenset({"normal"})]


@pytest.mark.parametrize("number", ["1", "12", "3.1", "2-7", "Annotation 0", " 4"])
def test_equal_numbers_on_two_slides_are_two_glomeruli(number: str) -> None:
    calls = [one_call("a", slide="s1", region=number), one_call("b", slide="s2", region=number)]
    assert len(group_glomeruli(calls, PAPER, head="softmax")) == 2


@pytest.mark.parametrize("name", ["g1", "7a", "Annotation 3 left", "uuid-1-2"])
def test_equal_names_on_two_slides_are_one_glomerulus(name: str) -> None:
    calls = [one_call("a", slide="s1", region=name), one_call("b", slide="s2", region=name)]
    assert len(group_glomeruli(calls, PAPER, head="softmax")) == 1


def test_glomeruli_of_two_patients_are_never_joined() -> None:
    calls = [one_call("a", region="g1", patient="p1"), one_call("b", region="g1", patient="p2")]
    assert len(group_glomeruli(calls, PAPER, head="softmax")) == 2


def test_a_correction_is_certain() -> None:
    calls = [one_call("a", "mspgn", either="normal+mspgn")]
    unsure = group_glomeruli(calls, PAPER, head="softmax")[0]
    assert unsure.possible_label_sets(EACH) == {frozenset({"mspgn"}), frozenset({"normal"})}
    corrections = {"a": frozenset({"cgn", "fsg"})}
    settled = group_glomeruli(calls, PAPER, head="softmax", corrections=corrections)[0]
    assert settled.labels == {"cgn", "fsg"}
    assert settled.is_certain


def test_a_correction_can_reject_a_glomerulus() -> None:
    calls = [one_call("a"), one_call("b")]
    glomeruli = group_glomeruli(calls, PAPER, head="softmax", corrections={"a": None})
    assert [one.labels for one in glomeruli] == [None, frozenset({"normal"})]


FIVE = ("a", "b", "c", "d", "e")
SOME = st.frozensets(st.sampled_from(FIVE))
EXCLUSIONS = st.lists(st.tuples(st.sampled_from(FIVE), st.sampled_from(FIVE)), max_size=4)


@settings(max_examples=300)
@given(
    EXCLUSIONS,
    st.lists(st.tuples(SOME, SOME, st.booleans()), min_size=1, max_size=2),
    st.lists(SOME, max_size=3),
    st.sampled_from(["softmax", "sigmoid"]),
)
def test_label_classes_give_the_same_answers_as_all_labels(pairs, sections, groups, head) -> None:
    excludes = {key: tuple({b for a, b in pairs if a == key != b}) for key in FIVE}
    taxonomy = Taxonomy("t", tuple(Label(id=k, name=k, excludes=excludes[k]) for k in FIVE))
    calls = [
        one_call(
            f"x{place}",
            "+".join(sorted(called)) or "a",
            either="+".join(sorted(either)),
            reasons=("no_tissue",) if strange else (),
            taxonomy=taxonomy,
            slide=f"s{place}",
            region="g",
        )
        for place, (called, either, strange) in enumerate(sections)
    ]
    (one,) = group_glomeruli(calls, taxonomy, head=head)
    full = one.possible_label_sets(tuple(frozenset({key}) for key in FIVE))
    grouped = one.possible_label_sets(tuple(groups))
    assert full is not None
    assert grouped is not None

    def answers(label_evaluations):
        return {
            None if r is None else tuple(bool(r & group) for group in groups)
            for r in label_evaluations
        }

    assert answers(grouped) == answers(full)
    assert one.labels in full
    assert one.is_certain == (len(full) == 1)
    assert one.may_be_no_glomerulus == (None in full)
    for key in FIVE:
        assert one.possible_values(key) == {
            reading is not None and key in reading for reading in full
        }


def test_many_uncertain_labels_on_several_sections_are_counted_quickly() -> None:
    lesions = tuple(f"lesion{n}" for n in range(17))
    names = ("normal", "cgn", "fsg", *lesions)
    taxonomy = Taxonomy(
        "wide",
        tuple(
            Label(
                id=key,
                name=key,
                excludes=names[1:] if key == "normal" else (),
                hpo=next((one.hpo for one in PAPER.labels if one.id == key), None),
            )
            for key in names
        ),
    )
    calls = [
        one_call(
            f"x{n}",
            "normal",
            reasons=("out_of_focus",),
            taxonomy=taxonomy,
            slide=f"s{n}",
            region="g",
        )
        for n in range(3)
    ]
    start = time.perf_counter()
    glomeruli = group_glomeruli(calls, taxonomy, head="sigmoid")
    rules = [load_rule_set(name) for name in BUILT_IN_RULE_SETS]
    found = summarize_case(glomeruli, taxonomy, rules)
    assert time.perf_counter() - start < 2
    assert {count.n_range for count in found.labels} == {(0, 1)}
    assert found.n_uncertain == 1


def test_with_too_many_label_sets_every_grade_is_possible() -> None:
    names = tuple(f"l{n}" for n in range(20))
    # Each excludes another one: no two labels are alike, and all of them stay apart.
    taxonomy = Taxonomy(
        "odd",
        tuple(
            Label(id=key, name=key, excludes=(names[(n + 1) % 20],)) for n, key in enumerate(names)
        ),
    )
    calls = [one_call("x", "l0", reasons=("out_of_focus",), taxonomy=taxonomy)]
    found = summarize_case(group_glomeruli(calls, taxonomy, head="sigmoid"), taxonomy, [])
    assert {count.n_range for count in found.labels} == {(0, 1)}
    assert found.n_uncertain == 1


def test_labels_that_no_group_distinguishes_are_one_class_unless_their_exclusions_differ() -> None:
    kinds = LabelClasses(PAPER, (frozenset({"cgn"}),))
    assert kinds.taxonomy.label_ids == ("normal", "mspgn", "cgn")
    assert kinds.of(("fsg", "mspgn")) == {"mspgn"}
    assert set(kinds.taxonomy.labels[0].excludes) == {"mspgn", "cgn"}


def test_a_class_is_certain_if_one_of_its_labels_is() -> None:
    kinds = LabelClasses(PAPER, (frozenset({"cgn"}),))
    fsg, unsure = frozenset({"fsg"}), frozenset({"mspgn", "cgn"})
    call = CallUncertainty(fsg, fsg, unsure, is_single_label=False, may_be_no_glomerulus=False)
    found = kinds.simplify(call)
    assert (found.called, found.certain, found.uncertain) == ({"mspgn"}, {"mspgn"}, {"cgn"})
