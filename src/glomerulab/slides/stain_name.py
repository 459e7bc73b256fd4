"""Which stain a slide's metadata name, if they name one. Nothing is read off the colours."""

import re
from collections.abc import Mapping

__all__ = ["stain_of_properties"]

# Silver comes before PAS: "PAS-M" and "periodic acid silver methenamine" start like PAS.
STAIN_PATTERNS = (
    ("H-DAB", r"\bdab\b|diaminobenzidine"),
    ("PASM", r"\bpas[-\s]?m\b|\bpams\b|methenamine|jones|silver"),
    ("PAS", r"\bpas\b|periodic acid[- ]schiff"),
    ("TRI", r"trichrom|masson"),
    ("HE", r"\bh\s?(&|\+|and|-)?\s?e\b|ha?ematoxylin.*eosin|eosin.*ha?ematoxylin"),
)
PREPARATION = re.compile(r"stain|specimenpreparation", re.IGNORECASE)


def stain_of_properties(properties: Mapping[str, str]) -> str | None:
    """Find the stain in a slide's properties.

    Parameters
    ----------
    properties : mapping of str to str
        Under OpenSlide's names.

    Returns
    -------
    str or None
        ``HE``, ``PAS``, ``PASM``, ``TRI`` or ``H-DAB``; None if no property about
        staining names one.

    Examples
    --------
    >>> stain_of_properties({"vendor.Stain": "Periodic acid-Schiff"})
    'PAS'
    """
    # DICOM lists the dyes of one stain as separate steps: read them together.
    stated = " ; ".join(value for name, value in properties.items() if PREPARATION.search(name))
    for stain, pattern in STAIN_PATTERNS:
        if re.search(pattern, stated, re.IGNORECASE | re.DOTALL):
            return stain
    return None
