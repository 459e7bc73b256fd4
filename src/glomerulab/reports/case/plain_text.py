"""Texts and ids as archives and records take them, and two of them never become the same."""

import hashlib
import re

__all__ = ["clean_id", "clean_text"]

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
NOT_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
N_HASH = 8


def clean_text(text: str) -> str:
    """Put a sign in place of each control character; line breaks and tabs stay.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
        Never blank: DICOM and FHIR have no empty text.
    """
    found = NOT_IN_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)
    return found if found.strip() else "-"


def clean_id(name: str, *, most: int | None = None, without: str = "") -> str:
    r"""Make an id without control characters; a hash keeps it unique where it had to change.

    Parameters
    ----------
    name : str
        Of a patient.
    most : int, optional
        Characters that there may be, the hash with them. Some receivers count bytes: an id that had
        to change is short by either.
    without : str, default ""
        Further characters that may not be in it.

    Returns
    -------
    str
        The name itself where it will do. Blanks at its ends count as lost: receivers drop them.

    Examples
    --------
    >>> clean_id("P12", most=64)
    'P12'
    >>> clean_id("P\\12", without="\\")
    'P_12-4f683f70'
    """
    safe = CONTROL.sub("_", name).strip()
    for sign in without:
        safe = safe.replace(sign, "_")
    if safe == name and name and (most is None or len(name) <= most):
        return name
    kept = safe
    if most is not None:
        kept = safe.encode()[: most - N_HASH - 1].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:N_HASH]}"
