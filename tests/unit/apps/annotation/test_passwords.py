import pytest
from argon2 import PasswordHasher, extract_parameters

from glomerulab.apps.annotation import passwords
from glomerulab.apps.annotation.passwords import hash_password, needs_new_hash, password_fits
from glomerulab.errors import AnnotationError


@pytest.fixture(autouse=True)
def _quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash as in earnest here."""
    monkeypatch.setattr(passwords, "HASHER", PasswordHasher())


def test_a_hash_fits_its_password_alone_and_is_salted() -> None:
    first, second = hash_password("correct horse"), hash_password("correct horse")
    assert first != second
    assert password_fits("correct horse", first)
    assert not password_fits("correct horsf", first)
    assert not password_fits("correct horse", None)
    assert not password_fits("correct horse", "no hash at all")


def test_an_unknown_account_costs_as_much_work_as_a_known_one() -> None:
    assert extract_parameters(passwords.NOBODYS_HASH) == extract_parameters(
        hash_password("correct horse")
    )


def test_a_password_has_a_least_and_a_greatest_length() -> None:
    for wrong in ("x" * 9, "x" * 257):
        with pytest.raises(AnnotationError, match=f"this one has {len(wrong)}"):
            hash_password(wrong)
    assert password_fits("x" * 256, hash_password("x" * 256))
    assert not password_fits("x" * 300, hash_password("x" * 256))


def test_a_hash_of_weaker_parameters_is_to_be_made_anew() -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("correct horse")
    assert needs_new_hash(weak)
    assert not needs_new_hash(hash_password("correct horse"))
