"""Passwords: hashed with argon2id, and never kept, logged or shown."""

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from glomerulab.errors import AnnotationError

__all__ = ["MIN_PASSWORD_LENGTH", "hash_password", "needs_new_hash", "password_fits"]

MIN_PASSWORD_LENGTH = 10
"""Characters."""

MAX_PASSWORD_LENGTH = 256
"""Characters: hashing a longer one costs the server more than it gains the user."""

HASHER = PasswordHasher()

# Checked when there is no such account, so that an unknown login costs as much time as a known one.
NOBODYS_HASH = (
    "$argon2id$v=19$m=65536,t=3,p=4$MDAwMDAwMDAwMDAwMDAwMA$"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)


def hash_password(password: str) -> str:
    """Return the salted argon2id hash of a new password.

    Parameters
    ----------
    password : str

    Returns
    -------
    str
        With its parameters, as argon2 writes it.

    Raises
    ------
    AnnotationError
        If the password is too short or too long.
    """
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise AnnotationError(
            f"a password must have {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters, "
            f"this one has {len(password)}"
        )
    return HASHER.hash(password)


def password_fits(password: str, password_hash: str | None) -> bool:
    """Tell whether a password is the one that was hashed, in the same time if there is no hash."""
    try:
        HASHER.verify(password_hash or NOBODYS_HASH, password[: MAX_PASSWORD_LENGTH + 1])
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None


def needs_new_hash(password_hash: str) -> bool:
    """Tell whether the hash was made with weaker parameters than those of today."""
    return HASHER.check_needs_rehash(password_hash)
