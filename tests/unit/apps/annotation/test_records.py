import pytest

from glomerulab.apps.annotation.records import AnnotatorProgress, SaveConflictError, StudySettings
from glomerulab.errors import AnnotationError


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": " "}, "needs a name"),
        ({"n_readers": 0}, "at least 1, got 0"),
        ({"repeat_share": 0.6}, "from 0 to 0.5, got 0.6"),
        ({"repeat_share": float("nan")}, "from 0 to 0.5"),
    ],
)
def test_an_invalid_design_is_rejected(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        StudySettings(**{"name": "study", **wrong})


def test_open_items_are_neither_done_nor_skipped() -> None:
    assert AnnotatorProgress("a", "A", 10, 4, 1, 0, 0.0, None, None).n_open == 5


def test_a_conflict_carries_the_saved_record() -> None:
    error = SaveConflictError("saved since", where="g1", current=None)
    assert (str(error), error.current) == ("g1: saved since", None)
