import pickle

import pytest

from glomerulab import errors
from glomerulab.errors import GlomerulabError, LeakageError, ManifestError

KINDS = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_can_be_pickled(
    kind: type[GlomerulabError],
) -> None:
    error = kind("is odd", where="a.csv")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == "a.csv: is odd"
    assert (again.message, again.where) == ("is odd", "a.csv")


def test_without_where_the_text_is_the_message() -> None:
    assert str(GlomerulabError("is odd")) == "is odd"


def test_leakage_is_an_error_of_the_manifest() -> None:
    assert issubclass(LeakageError, ManifestError)


def test_the_tree_in_the_docstring_names_every_error() -> None:
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in errors.__all__)


def test_a_place_of_any_length_is_shortened_where_it_is_shown() -> None:
    error = GlomerulabError("it is too long", where="x" * 70_000)
    assert len(str(error)) < 3000
    assert str(error).endswith("it is too long")
    assert error.where == "x" * 70_000
