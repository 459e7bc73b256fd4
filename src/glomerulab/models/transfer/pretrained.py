"""Where ImageNet weights come from: a folder of this machine, or a hub when the user names them.

Hospitals are offline. So the folder is looked at first, and when neither has the file the error
says which one to fetch and where to put it.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from glomerulab.errors import CheckpointError
from glomerulab.models.registry import find_model

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

__all__ = ["imagenet_scale", "imagenet_weights", "weights_folder"]

Triple = tuple[float, float, float]

FOLDER_VARIABLE = "GLOMERULAB_WEIGHTS"


def weights_folder() -> Path:
    """Return where weights that somebody fetched by hand are looked for.

    Returns
    -------
    Path
        ``$GLOMERULAB_WEIGHTS``, or ``~/.cache/glomerulab/weights``.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "glomerulab" / "weights"


def imagenet_weights(name: str) -> Path:
    """Return the file of the ImageNet weights that timm has for a network.

    Parameters
    ----------
    name : str
        Of the registry. The improved network has none of its own: ResNet-34's stand for them.

    Returns
    -------
    Path
        In `weights_folder`, or else in the hub's cache, downloaded if need be.

    Raises
    ------
    CheckpointError
        If there are none for this network, or they are neither here nor to be had; the message says
        what to fetch and where to put it.
    ValueError
        If the name is unknown.
    """
    config = _config(name)
    tagged = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    path = weights_folder() / f"{tagged}.safetensors"
    return path if path.is_file() else _from_hub(str(config.hf_hub_id), path)


def imagenet_scale(name: str) -> tuple[Triple, Triple]:
    """Return the mean and standard deviation that timm's ImageNet weights of a network expect.

    Parameters
    ----------
    name : str
        As `imagenet_weights` takes it.

    Returns
    -------
    mean, std : tuple of 3 float
        Inception V3's are not those of the others.

    Raises
    ------
    CheckpointError
        If there are no weights for this network.
    ValueError
        If the name is unknown.
    """
    config = _config(name)
    mean, std = ((r, g, b) for r, g, b in (config.mean, config.std))
    return mean, std


def _config(name: str) -> "PretrainedCfg":
    """Return what timm says of the ImageNet weights of a network."""
    import timm

    timm_name = find_model(name).imagenet
    config = timm.get_pretrained_cfg(timm_name) if timm_name else None
    if config is None or not config.hf_hub_id:
        raise CheckpointError("timm has no ImageNet weights for it; give a file", where=name)
    return config


def _from_hub(repository: str, path: Path) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, "model.safetensors"))
    except OSError as error:
        raise CheckpointError(
            f"cannot be downloaded here. Where there is a network, fetch "
            f"https://huggingface.co/{repository}/resolve/main/model.safetensors, put it at {path} "
            f"(or in the folder that {FOLDER_VARIABLE} names), and run this again",
            where=f"ImageNet weights {repository}",
        ) from error
