"""Names and texts that file systems, addresses and archives accept, unique for each original."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from urllib.parse import quote

__all__ = [
    "clean_id",
    "clean_text",
    "distinct_names",
    "hashed_name",
    "look_alike_key",
    "plain_name",
    "quoted_name",
    "safe_name",
]

NOT_IN_FILE_NAME = re.compile(r"[^\w.\-]+")
MAX_FILE_NAME_BYTES = 120
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
NOT_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
N_HASH = 8
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters without a picture that Unicode counts as letters, marks or symbols."""


def safe_name(name: str) -> str:
    """Return a file name that is valid on every system, readable and in any script.

    It is `name` itself where that is valid and at most 120 bytes long; otherwise a hash is added
    to keep it unique.
    """
    safe = NOT_IN_FILE_NAME.sub("_", name).strip(".") or "_"
    if safe == name and len(safe.encode()) <= MAX_FILE_NAME_BYTES:
        return safe
    kept = safe.encode()[:MAX_FILE_NAME_BYTES].decode(errors="ignore")
    return f"{kept}-{_hash(name, N_HASH)}"


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return `safe_name` of each, none equal to another on a file system that ignores case.

    Names that it would take for one get a hash.

    Examples
    --------
    >>> distinct_names(["P7", "P8"])
    ['P7', 'P8']
    >>> distinct_names(["P7", "p7"])
    ['P7-da384340', 'p7-03fbd36c']
    """
    safe = [safe_name(name) for name in names]
    counts = Counter(name.casefold() for name in safe)
    return [
        one if counts[one.casefold()] == 1 else f"{one}-{_hash(name, N_HASH)}"
        for name, one in zip(names, safe, strict=True)
    ]


def quoted_name(name: str) -> str:
    """Return a file name from which the original can be read back (percent encoding)."""
    return quote(name, safe=" ")


def hashed_name(name: str) -> str:
    """Return 16 hexadecimal digits: neither a path nor anything about a patient."""
    return _hash(name, 16)


def look_alike_key(name: str) -> str:
    """Return what ids have in common that probably mean the same.

    Case, blanks, hyphens, leading zeros, the ``.0`` of a number, full-width digits and the Unicode
    form do not count.

    Examples
    --------
    >>> {look_alike_key(name) for name in ("12", "12.0", "012", "１２", " 12")}
    {'12'}
    >>> {look_alike_key(name) for name in ("P7", "p7", "P-07", "P 7")}
    {'p7'}
    >>> look_alike_key("1-12") == look_alike_key("11-2")
    False
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    kinds = ((character, unicodedata.category(character)) for character in folded)
    plain = "".join("-" if kind == "Pd" else one for one, kind in kinds if kind != "Cf")
    parted = re.sub(r"(?<=\d)[\s_-]+(?=\d)", "-", plain.strip())
    joined = re.sub(r"[\s_]+|-(?!\d)|(?<!\d)-", "", parted)
    whole = re.sub(r"^(\d+)\.0+$", r"\1", joined)
    return re.sub(r"(?<![\d.])0+(?=\d)", "", whole)


def plain_name(name: str) -> str:
    r"""Return a name of a person or program in the form in which it is stored and compared.

    Unicode's compatible form (NFKC), without invisible characters, with single blanks.

    Examples
    --------
    >>> plain_name("  Dr\u00a0\u3000Ａnna\u200b ")
    'Dr Anna'
    """
    seen = INVISIBLE.sub("", unicodedata.normalize("NFKC", name))
    kinds = ((one, unicodedata.category(one)) for one in seen)
    shown = (one for one, kind in kinds if one.isspace() or not kind.startswith("C"))
    return unicodedata.normalize("NFKC", " ".join("".join(shown).split()))


def clean_id(name: str, *, most: int | None = None, without: str = "") -> str:
    r"""Return an id without control characters, for DICOM and FHIR.

    Parameters
    ----------
    name : str
        Returned itself where it is valid. Blanks at its ends are not, since receivers drop them.
        A changed id ends in a hash that keeps it unique.
    most : int, optional
        Maximum characters, hash included. A changed id also keeps to it in bytes, which some
        receivers count.
    without : str, default ""
        Further characters that are not allowed.

    Examples
    --------
    >>> clean_id("P12", most=64)
    'P12'
    >>> clean_id("P\\12", without="\\")
    'P_12-4f683f70'
    """
    safe = CONTROL.sub("_", name).strip()
    for character in without:
        safe = safe.replace(character, "_")
    if safe == name and name and (most is None or len(name) <= most):
        return name
    kept = safe
    if most is not None:
        kept = safe.encode()[: most - N_HASH - 1].decode(errors="ignore")
    return f"{kept}-{_hash(name, N_HASH)}"


def clean_text(text: str) -> str:
    """Replace control characters except line breaks and tabs; a blank text becomes a dash.

    DICOM and FHIR have no empty text.
    """
    found = NOT_IN_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)
    return found if found.strip() else "-"


def _hash(name: str, n_digits: int) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:n_digits]
