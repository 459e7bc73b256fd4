"""File names that are valid on every system and unique for each id."""

import hashlib
import re

__all__ = ["safe_name"]

UNSAFE = re.compile(r"[^\w.\-]+")
MAX_NAME_LENGTH = 120


def safe_name(name: str) -> str:
    """Make a name a file can have on any system; other scripts stay, a hash keeps it unique.

    Parameters
    ----------
    name : str

    Returns
    -------
    str
        `name` itself where it will do.
    """
    safe = UNSAFE.sub("_", name).strip(".") or "_"
    if safe == name and len(safe.encode()) <= MAX_NAME_LENGTH:
        return safe
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    kept = safe.encode()[:MAX_NAME_LENGTH].decode(errors="ignore")
    return f"{kept}-{mark}"
