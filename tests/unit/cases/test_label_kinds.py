from glomerulab.cases.calls import CallUncertainty
from glomerulab.cases.label_kinds import label_kinds
from tests.support.cases import PAPER


def test_labels_that_no_group_tells_apart_are_one_kind_unless_they_exclude_otherwise() -> None:
    kinds = label_kinds(PAPER, (frozenset({"cgn"}),))
    assert kinds.taxonomy.label_ids == ("normal", "mspgn", "cgn")
    assert kinds.of(("fsg", "mspgn")) == {"mspgn"}
    assert set(kinds.taxonomy.labels[0].excludes) == {"mspgn", "cgn"}


def test_a_kind_is_sure_where_one_of_its_labels_is() -> None:
    kinds = label_kinds(PAPER, (frozenset({"cgn"}),))
    fsg, unsure = frozenset({"fsg"}), frozenset({"mspgn", "cgn"})
    call = CallUncertainty(fsg, fsg, unsure, is_one_label=False, may_be_none=False)
    found = kinds.simplified(call)
    assert (found.called, found.sure, found.unsure) == ({"mspgn"}, {"mspgn"}, {"cgn"})
