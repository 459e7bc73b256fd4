"""A run folder's seal: the hashes of its files as training left them, and the check against them.

Training writes it last; whoever judges or applies the run finds out by it that a table, a setting
or the checkpoint was changed or lost since. It is no signature: who can change the files can write
the seal again. It finds mistakes, not malice.
"""

import hashlib
import json
from pathlib import Path

from glomerulab.errors import CheckpointError, RunError
from glomerulab.runtime.files import atomic_write

__all__ = ["SEALED_FILES", "SEAL_FILE", "check_seal", "require_run_folder", "write_seal"]

SEAL_FILE = "seal.json"
MODEL_FILES = ("checkpoint/checkpoint.json", "checkpoint.json", "model.onnx")
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


def require_run_folder(folder: Path) -> None:
    """Make sure that a folder holds a trained model.

    Parameters
    ----------
    folder : Path
        A run folder, its ``checkpoint`` folder, or what ``export`` made of one.

    Raises
    ------
    CheckpointError
        If there is no such folder, or no model in it.
    """
    if not folder.is_dir():
        raise CheckpointError("no such run folder", where=str(folder))
    if not any((folder / name).is_file() for name in MODEL_FILES):
        raise CheckpointError(
            "is no run folder: it holds no trained model; give the folder that `glomerulab train` "
            "or `glomerulab export` wrote",
            where=str(folder),
        )


def write_seal(folder: Path) -> None:
    """Write down the hashes of a run's files.

    Parameters
    ----------
    folder : Path
        The run folder, complete.
    """
    hashes = {name: _sha256(folder / name) for name in SEALED_FILES if (folder / name).is_file()}
    with atomic_write(folder / SEAL_FILE) as temporary:
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
