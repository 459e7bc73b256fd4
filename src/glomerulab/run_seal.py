"""A run folder's seal: the hashes of its files as training left them, and the check against them.

Training writes it last; whoever judges or applies the run finds out by it that a table, a setting
or the checkpoint was changed or lost since. It is no signature: who can change the files can write
the seal again. It finds mistakes, not malice.
"""

import hashlib
import json
from pathlib import Path

from glomerulab.errors import RunError
from glomerulab.files import written_whole

__all__ = ["SEALED_FILES", "SEAL_FILE", "check_seal", "write_seal"]

SEAL_FILE = "seal.json"
SEALED_FILES = (
    "config.toml",
    "manifest.csv",
    "taxonomy.toml",
    "history.csv",
    "environment.json",
    "predictions.csv",
    "checkpoint/checkpoint.json",
)
"""Where they are there. The checkpoint's JSON holds the hash of the weights."""


def write_seal(folder: Path) -> None:
    """Write down the hashes of a run's files.

    Parameters
    ----------
    folder : Path
        The run folder, complete.
    """
    hashes = {name: _sha256(folder / name) for name in SEALED_FILES if (folder / name).is_file()}
    with written_whole(folder / SEAL_FILE) as temporary:
        temporary.write_text(json.dumps({"sha256": hashes}, indent=2) + "\n", encoding="utf-8")


def check_seal(folder: Path) -> bool:
    """Make sure that a run's files are those that were sealed.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    bool
        False if the run bears no seal, so that nothing can be said.

    Raises
    ------
    RunError
        If a sealed file is missing or another one, or the seal cannot be read; it names the file.
    """
    path = folder / SEAL_FILE
    if not path.is_file():
        return False
    for name, expected in _read(path).items():
        file = folder / name
        if not file.is_file():
            raise RunError(
                "missing, though the run had it when it was trained; copy the whole folder again",
                where=str(file),
            )
        if _sha256(file) != expected:
            raise RunError(
                "changed since the run was trained (SHA-256 differs from seal.json); copy the "
                "whole folder again or train again. Tables of your own are judged where no "
                "seal.json lies beside them, and the report then says that they bear none",
                where=str(file),
            )
    return True


def _read(path: Path) -> dict[str, str]:
    try:
        hashes = json.loads(path.read_text(encoding="utf-8"))["sha256"]
        return {name: str(hashes[name]) for name in SEALED_FILES if name in hashes}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"cannot be read as a seal: {error}", where=str(path)) from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
