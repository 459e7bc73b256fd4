"""Where the network looked, one picture per glomerulus: Grad-CAM of the likeliest label.

Gradients need torch and the run itself; an exported model has none.
"""

from collections.abc import Mapping
from pathlib import Path

from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import ConfigError, ImageFileError
from glomerulab.images import write_image
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.names import safe_name
from glomerulab.runtime.progress import Track, silent

__all__ = ["SALIENCY_FOLDER", "refuse_export", "write_saliency"]

SALIENCY_FOLDER = "saliency"


def refuse_export(run: Path) -> None:
    """Say that an exported model cannot be looked into.

    Parameters
    ----------
    run : Path

    Raises
    ------
    ConfigError
        If `run` is no run folder.
    """
    if (run / "model.onnx").is_file():
        raise ConfigError(
            "an exported model has no gradients, which saliency needs: give --model the run folder "
            "it was exported from, or leave out --saliency",
            where=str(run),
        )


def write_saliency(
    run: Path,
    shown: Manifest,
    likeliest: Mapping[str, str],
    out: Path,
    *,
    mark: str,
    track: Track = silent,
) -> dict[str, str]:
    """Write a picture of where the network looked for each image.

    Parameters
    ----------
    run : Path
        A run folder.
    shown : Manifest
        The images as the network is shown them.
    likeliest : mapping of str to str
        By image id, the label to explain; other images are left out.
    out : Path
        Gets ``saliency/``.
    mark : str
        Of the weights: pictures of another model are not taken for this one's.
    track : Track, optional

    Returns
    -------
    dict of str to str
        By image id, the path of its picture relative to `out`.
    """
    from glomerulab.explain.attribution import Method
    from glomerulab.explain.explainer import Explainer

    folder = make_folder(out / SALIENCY_FOLDER / mark[:12])
    method: Method = "grad-cam"
    explainer = Explainer(run, methods=(method,))
    pairs = zip(shown.table["image_id"].astype(str), shown.image_paths(), strict=True)
    wanted = [(name, path) for name, path in pairs if name in likeliest]
    found = {}
    for name, path in track(wanted, "Looking into the network", len(wanted)):
        picture = folder / f"{safe_name(name)}.{likeliest[name]}.png"
        try:
            write_image(explainer.picture(path, likeliest[name]), picture)
        except ImageFileError:  # gone since it was judged: the report shows the call without it
            continue
        found[name] = picture.relative_to(out).as_posix()
    return found
