"""Bytes and facts that belong together, written so that they are whole or not there.

The bytes go to a safetensors file named by its own hash; then a JSON file that names it is
replaced in one step. A process killed in between leaves the older pair in force. Without torch:
what the bytes mean is for others.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from glomerulab.errors import CheckpointError
from glomerulab.runtime.files import atomic_write, make_folder, remove_partial_files

__all__ = ["seal", "unseal"]


def seal(folder: Path, name: str, content: bytes, facts: Mapping[str, object]) -> None:
    """Write bytes and facts as one whole.

    Parameters
    ----------
    folder : Path
        Made if needed.
    name : str
        Gives ``<name>.json`` and ``<name>-<hash>.safetensors``; an older pair is replaced.
    content : bytes
        Of a safetensors file.
    facts : mapping of str to object
        What JSON can hold; the keys ``tensors_file`` and ``tensors_sha256`` are added.
    """
    make_folder(folder)
    digest = hashlib.sha256(content).hexdigest()
    file_name = f"{name}-{digest[:16]}.safetensors"
    with atomic_write(folder / file_name) as temporary:
        temporary.write_bytes(content)
    sealed = {**facts, "tensors_file": file_name, "tensors_sha256": digest}
    with atomic_write(folder / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(sealed, indent=2, ensure_ascii=False), encoding="utf-8")
    for path in folder.glob(f"{name}-*.safetensors"):
        if path.name != file_name:
            path.unlink()
    remove_partial_files(folder)


def unseal(folder: Path, name: str) -> tuple[bytes, dict[str, object]]:
    """Read bytes and facts, and verify that they belong together.

    Parameters
    ----------
    folder : Path
    name : str

    Returns
    -------
    content : bytes
    facts : dict of str to object

    Raises
    ------
    CheckpointError
        If a file is missing or unreadable, or the bytes are not those the facts were written for.
    """
    facts = _read_facts(folder, name)
    file_name = facts.get("tensors_file")
    if not isinstance(file_name, str) or Path(file_name).name != file_name:
        raise CheckpointError("names no tensors_file", where=str(folder / f"{name}.json"))
    path = folder / file_name
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"cannot be read: {reason}", where=str(path)) from error
    if hashlib.sha256(content).hexdigest() != facts.get("tensors_sha256"):
        raise CheckpointError(
            "the tensors are not those that were written (SHA-256 differs); "
            "copy the whole folder again or train again",
            where=str(path),
        )
    return content, facts


def _read_facts(folder: Path, name: str) -> dict[str, object]:
    """Read the facts without the bytes."""
    path = folder / f"{name}.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"cannot be read: {reason}", where=str(path)) from error
    except ValueError as error:
        raise CheckpointError(f"not valid JSON: {error}", where=str(path)) from error
    if not isinstance(facts, dict):
        raise CheckpointError("must hold one JSON object", where=str(path))
    return facts
