from glomerulab.report.counting import glomeruli_of
from tests.cases import PAPER, one_call


def test_one_id_on_serial_sections_is_one_glomerulus() -> None:
    calls = [
        one_call("a", "normal", slide="s1", region="g7"),
        one_call("b", "cgn", slide="s2", region="g7"),
        one_call("c", "normal", slide="s2", region="g8"),
    ]
    glomeruli = glomeruli_of(calls, PAPER, head="softmax")
    assert [one.called for one in glomeruli] == [frozenset({"cgn"}), frozenset({"normal"})]


def test_numbers_that_stand_for_no_name_join_nothing() -> None:
    calls = [one_call("a", slide="s1", region="1"), one_call("b", slide="s2", region="1")]
    assert len(glomeruli_of(calls, PAPER, head="softmax")) == 2


def test_glomeruli_of_two_patients_are_never_joined() -> None:
    calls = [one_call("a", region="g1", patient="p1"), one_call("b", region="g1", patient="p2")]
    assert len(glomeruli_of(calls, PAPER, head="softmax")) == 2


def test_a_person_settles_what_the_model_could_not() -> None:
    calls = [one_call("a", "mspgn", either="normal+mspgn")]
    unsure = glomeruli_of(calls, PAPER, head="softmax")[0]
    assert unsure.possible == {frozenset({"mspgn"}), frozenset({"normal"})}
    said = {"a": frozenset({"cgn", "fsg"})}
    settled = glomeruli_of(calls, PAPER, head="softmax", overruled=said)[0]
    assert settled.called == {"cgn", "fsg"}
    assert settled.is_certain


def test_a_person_can_say_that_it_is_no_glomerulus() -> None:
    calls = [one_call("a"), one_call("b")]
    glomeruli = glomeruli_of(calls, PAPER, head="softmax", overruled={"a": None})
    assert [one.called for one in glomeruli] == [None, frozenset({"normal"})]
