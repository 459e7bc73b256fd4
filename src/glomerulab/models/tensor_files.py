"""Tensors and facts that belong together, written so that they are whole or not there.

Nothing here executes when it is read. It must not know what the tensors are.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from glomerulab.errors import CheckpointError
from glomerulab.runtime.sealing import seal, unseal

__all__ = ["read_sealed", "write_sealed"]


def write_sealed(
    folder: Path, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, object]
) -> None:
    """Write tensors and facts as one whole.

    Parameters
    ----------
    folder : Path
        Made if needed.
    name : str
        Gives ``<name>.json`` and ``<name>-<hash>.safetensors``; an older pair is replaced.
    tensors : mapping of str to Tensor
    facts : mapping of str to object
        What JSON can hold; the keys ``tensors_file`` and ``tensors_sha256`` are added.
    """
    # Tensors that share memory or are not contiguous are refused by safetensors: copy.
    content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    seal(folder, name, content, facts)


def read_sealed(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Read tensors and facts, and verify that they belong together.

    Parameters
    ----------
    folder : Path
    name : str

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU.
    facts : dict of str to object

    Raises
    ------
    CheckpointError
        If a file is missing or unreadable, or the tensors are not those the facts were written for.
    """
    content, facts = unseal(folder, name)
    try:
        return load(content), facts
    except SafetensorError as error:
        path = folder / str(facts["tensors_file"])
        raise CheckpointError(f"not safetensors: {error}", where=str(path)) from error
