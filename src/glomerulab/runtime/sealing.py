"""Hashes that find changed files: a run's seal, and bundles of tensors and facts.

A *seal* is ``seal.json`` in a run folder: the hashes of the run's files as training left them. It
finds mistakes, not malice: who can change the files can write the seal again.

A *bundle* is a safetensors file named by its own hash, and a JSON file of facts that names it. The
JSON is replaced in one step, so that a killed process leaves the older pair in force.

Without torch, so that evaluation and reports can check a seal.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path

from glomerulab.errors import CheckpointError, RunError
from glomerulab.runtime.files import atomic_write, make_folder, read_json, remove_partial_files

__all__ = [
    "CROSSVAL_FILE",
    "SEALED_FILES",
    "SEAL_FILE",
    "check_seal",
    "crossval_runs",
    "is_crossval",
    "read_bundle",
    "require_run_folder",
    "write_bundle",
    "write_seal",
]

SEAL_FILE = "seal.json"
CROSSVAL_FILE = "crossval.json"
"""Settings of a cross-validation, in its folder."""
MODEL_FILES = ("checkpoint/checkpoint.json", "checkpoint.json", "model.onnx", CROSSVAL_FILE)
SEALED_FILES = (
    "config.toml",
    "manifest.csv",
    "taxonomy.toml",
    "history.csv",
    "environment.json",
    "predictions.csv",
    "checkpoint/checkpoint.json",
)
"""Sealed where they exist. The checkpoint's JSON holds the hash of the weights."""


def is_crossval(folder: Path) -> bool:
    """Return whether a folder is that of a cross-validation."""
    return (folder / CROSSVAL_FILE).is_file()


def crossval_runs(folder: Path) -> list[Path]:
    """Return the run folders of a complete cross-validation, in order.

    Raises
    ------
    RunError
        If one is missing or not complete.
    """
    settings = read_json(folder / CROSSVAL_FILE, "record of the cross-validation", error=RunError)
    found = sorted(path.parent for path in (folder / "runs").glob(f"*/{SEAL_FILE}"))
    try:
        n_runs = int(settings["folds"]) * int(settings["repeats"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            "the record of the cross-validation does not give folds and repeats; copy the whole "
            "folder again",
            where=str(folder / CROSSVAL_FILE),
        ) from error
    if len(found) != n_runs:
        raise RunError(
            f"the cross-validation has {n_runs} runs, and {len(found)} of them are complete here; "
            "copy the whole folder again, or run `glomerulab crossval` again to continue it",
            where=str(folder / "runs"),
        )
    return found


def require_run_folder(folder: Path) -> None:
    """Check that a folder holds a trained model.

    Parameters
    ----------
    folder : Path
        A run folder, its ``checkpoint`` folder, or an exported model.

    Raises
    ------
    CheckpointError
        If there is no such folder, or no model in it.
    """
    if not folder.is_dir():
        raise CheckpointError(
            "there is no such run folder; give the folder that `glomerulab train` or `glomerulab "
            "export` wrote",
            where=str(folder),
        )
    if not any((folder / name).is_file() for name in MODEL_FILES):
        raise CheckpointError(
            "the folder holds no trained model; give the folder that `glomerulab train` or "
            "`glomerulab export` wrote",
            where=str(folder),
        )


def write_seal(folder: Path, *, others: Collection[str] = ()) -> None:
    """Write the hashes of a complete run's files, and of other files of it, to ``seal.json``."""
    names = [name for name in (*SEALED_FILES, *others) if (folder / name).is_file()]
    hashes = {name: _sha256(folder / name) for name in names}
    with atomic_write(folder / SEAL_FILE) as temporary:
        temporary.write_text(json.dumps({"sha256": hashes}, indent=2) + "\n", encoding="utf-8")


def check_seal(folder: Path) -> bool:
    """Check a run's files against its seal; return False where it has none.

    Raises
    ------
    RunError
        If a sealed file is missing or changed, or the seal cannot be read; it names the file. If
        the folder is that of a cross-validation that was interrupted.
    """
    path = folder / SEAL_FILE
    if not path.is_file():
        if is_crossval(folder) and not (folder / "config.toml").is_file():
            raise RunError(
                "the cross-validation in this folder is not complete; run `glomerulab crossval` "
                "again to continue it",
                where=str(folder),
            )
        return False
    for name, expected in _read_seal(path).items():
        file = folder / name
        if not file.is_file():
            raise RunError(
                f"{name} is missing, though the run had it when it was trained; copy the whole "
                "folder again",
                where=str(file),
            )
        if _sha256(file) != expected:
            raise RunError(
                f"{name} changed since the run was trained (SHA-256 differs from seal.json); copy "
                "the whole folder again or train again. To evaluate tables of your own, put them "
                "in a folder without seal.json; the report then states that they are not sealed",
                where=str(file),
            )
    return True


def _read_seal(path: Path) -> dict[str, str]:
    try:
        hashes = read_json(path, "seal of the run", error=RunError)["sha256"]
        return {str(name): str(one) for name, one in hashes.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise RunError(
            "the seal of the run lists no SHA-256; copy the whole folder again", where=str(path)
        ) from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_bundle(folder: Path, name: str, content: bytes, facts: Mapping[str, object]) -> None:
    """Write bytes and facts as one bundle, in place of an older one of that name.

    Parameters
    ----------
    folder : Path
        Made if needed.
    name : str
        Gives ``<name>.json`` and ``<name>-<hash>.safetensors``.
    content : bytes
        Of a safetensors file.
    facts : mapping of str to object
        JSON values; the keys ``tensors_file`` and ``tensors_sha256`` are added.
    """
    make_folder(folder)
    digest = hashlib.sha256(content).hexdigest()
    file_name = f"{name}-{digest[:16]}.safetensors"
    with atomic_write(folder / file_name) as temporary:
        temporary.write_bytes(content)
    written = {**facts, "tensors_file": file_name, "tensors_sha256": digest}
    with atomic_write(folder / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(written, indent=2, ensure_ascii=False), encoding="utf-8")
    for path in folder.glob(f"{name}-*.safetensors"):
        if path.name != file_name:
            path.unlink()
    remove_partial_files(folder)


def read_bundle(folder: Path, name: str) -> tuple[bytes, dict[str, object]]:
    """Read the bytes and the facts of a bundle.

    Raises
    ------
    CheckpointError
        If a file is missing or unreadable, or the bytes are not those the facts were written for.
    """
    facts = _read_facts(folder / f"{name}.json")
    file_name = facts.get("tensors_file")
    if not isinstance(file_name, str) or Path(file_name).name != file_name:
        raise CheckpointError(
            f"{name}.json names no tensors_file of its folder", where=str(folder / f"{name}.json")
        )
    path = folder / file_name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if hashlib.sha256(content).hexdigest() != facts.get("tensors_sha256"):
        raise CheckpointError(
            f"the tensors of {name} are not those that were written (SHA-256 differs); "
            "copy the whole folder again or train again",
            where=str(path),
        )
    return content, facts


def _read_facts(path: Path) -> dict[str, object]:
    facts = read_json(path, path.name, error=CheckpointError, way_out="copy the whole folder again")
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path.name} must hold one JSON object", where=str(path))
    return facts


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    reason = error.strerror or str(error)
    return CheckpointError(f"{path.name} cannot be read: {reason}", where=str(path))
