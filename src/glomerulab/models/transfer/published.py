"""Networks that others published with their weights, such as pathology foundation models.

A source is ``hf-hub:owner/name``, or a local folder with the same files: ``config.json`` of timm or
transformers, and the weights. The network is built by timm with the arguments that the files name.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from glomerulab.errors import CheckpointError
from glomerulab.models.card import Option, Origin, Triple
from glomerulab.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from glomerulab.models.registry import HUB_PREFIX, LOCAL_PREFIX, TIMM_PREFIX, find_model
from glomerulab.models.transfer.hub import hub_file
from glomerulab.models.transfer.hugging_face import timm_arguments
from glomerulab.models.transfer.weight_files import check_unpacked_size
from glomerulab.runtime.files import read_json

__all__ = ["PublishedModel", "find_published", "is_published", "origin_lines"]

CONFIG_FILE = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pth", ".pt"}
TRANSFORMERS_KINDS = {"vit", "dinov2", "dinov2_with_registers"}
BASE = "vit_base_patch16_224"
"""Network of timm whose arguments describe any plain vision transformer."""
MAX_SIDE = 10_000
"""Of an image, px."""
NOT_ARGUMENTS = {"num_classes", "in_chans", "img_size", "pretrained"}
"""Set by the training, not by the files."""
RESTRICTED = re.compile(r"(?:^|[^a-z])(?:nc|nd|non-?commercial|no-?derivatives|other)(?:$|[^a-z])")


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A network, and the file of its weights."""

    model: str
    """Name in the registry."""
    options: dict[str, Option]
    """Options of this network."""
    input_size: int
    """Height and width of the images it was trained on, px."""
    mean: Triple
    std: Triple
    weights: Path
    origin: Origin


def is_published(name: str) -> bool:
    """Return whether a name or path is that of a published network, not of a run or a file."""
    if name.startswith((HUB_PREFIX, LOCAL_PREFIX)):
        return True
    folder = Path(name)
    return (folder / CONFIG_FILE).is_file() and not (folder / "checkpoint").is_dir()


def find_published(source: str) -> PublishedModel:
    """Read what the files of a published network say about it.

    Parameters
    ----------
    source : str
        ``hf-hub:owner/name``, ``local-dir:folder``, or a folder.

    Raises
    ------
    CheckpointError
        If a file is missing, malformed or not downloadable, or this version of timm has no such
        network; the message names it.
    """
    files = _Files(source)
    config = files.config()
    if "architecture" in config:
        return _of_timm(config, files)
    if config.get("model_type") in TRANSFORMERS_KINDS:
        return _of_transformers(config, files)
    raise CheckpointError(
        f"{CONFIG_FILE} describes no network that can be built: it needs an `architecture` of "
        f"timm, or a `model_type` of {', '.join(sorted(TRANSFORMERS_KINDS))}, and has "
        f"{config.get('model_type', 'neither')}",
        where=source,
    )


def origin_lines(origin: Origin) -> list[str]:
    """Describe licence and citation for the user."""
    if origin.licence is None:
        lines = [f"licence of {origin.source}: not stated in its files; read it before any use"]
    else:
        lines = [f"licence of {origin.source}: {origin.licence}"]
        if RESTRICTED.search(origin.licence.lower()):
            lines.append(
                "WARNING: this licence restricts the use of the weights and of models made from "
                "them (such as commercial use, or passing them on); check that yours is allowed"
            )
    if origin.citation is not None:
        lines.append(f"cite: {origin.citation}")
    return lines


class _Files:
    """The files of a source, in a folder or on the hub."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.is_hub = source.startswith(HUB_PREFIX)
        self.place = source.removeprefix(HUB_PREFIX).removeprefix(LOCAL_PREFIX)
        if not self.is_hub and not Path(self.place).is_dir():
            raise CheckpointError(f"there is no folder {self.place}", where=source)

    def find(self, *names: str) -> Path | None:
        """Return the first of the files that exists."""
        if self.is_hub:
            return hub_file(self.place, *names)
        paths = (Path(self.place) / name for name in names)
        return next((path for path in paths if path.is_file()), None)

    def config(self) -> dict[str, object]:
        path = self.find(CONFIG_FILE)
        if path is None:
            raise CheckpointError(f"there is no {CONFIG_FILE}", where=self.source)
        return _read_json(path)

    def json(self, name: str) -> dict[str, object]:
        """Return the content of a file that may be missing."""
        path = self.find(name)
        return {} if path is None else _read_json(path)

    def readme(self) -> str:
        path = self.find("README.md")
        return "" if path is None else path.read_text(encoding="utf-8", errors="replace")

    def weights(self) -> Path:
        path = self.find(*WEIGHT_FILES)
        if path is None and not self.is_hub:
            others = [
                one for one in Path(self.place).iterdir() if one.suffix.lower() in WEIGHT_SUFFIXES
            ]
            path = others[0] if len(others) == 1 else None
        if path is None:
            raise CheckpointError(
                f"there is no file of weights; looked for {' and '.join(WEIGHT_FILES)}",
                where=self.source,
            )
        return path


def _of_timm(config: Mapping[str, object], files: _Files) -> PublishedModel:
    inner = config.get("pretrained_cfg")
    facts = inner if isinstance(inner, dict) else config
    name = str(config["architecture"])
    try:
        default_size = find_model(f"{TIMM_PREFIX}{name}").input_size
    except ValueError as error:
        raise CheckpointError(
            f"the installed timm {_timm_version()} has no network {name!r}, which {CONFIG_FILE} "
            "names; install a newer timm",
            where=files.source,
        ) from error
    given = config.get("model_args")
    arguments = dict(given) if isinstance(given, dict) else {}
    if "global_pool" in config:
        arguments.setdefault("global_pool", config["global_pool"])
    if arguments.get("in_chans", 3) != 3:
        raise CheckpointError(
            f"the network reads {arguments['in_chans']} channels, and images have 3",
            where=files.source,
        )
    size = _size(arguments.get("img_size")) or _size(facts.get("input_size")) or default_size
    weights = files.weights()
    options = _options(arguments, weights, files.source)
    return PublishedModel(
        f"{TIMM_PREFIX}{name}",
        options,
        size,
        _triple(facts.get("mean")) or IMAGENET_MEAN,
        _triple(facts.get("std")) or IMAGENET_STD,
        weights,
        _origin(facts, files),
    )


def _of_transformers(config: Mapping[str, object], files: _Files) -> PublishedModel:
    try:
        options = timm_arguments(config)
    except KeyError as error:
        raise CheckpointError(
            f"{CONFIG_FILE} has no number {error.args[0]!r}", where=files.source
        ) from error
    pictures = files.json("preprocessor_config.json")
    size = _size(pictures.get("crop_size")) or _size(config.get("image_size")) or 224
    return PublishedModel(
        f"{TIMM_PREFIX}{BASE}",
        dict(options),
        size,
        _triple(pictures.get("image_mean")) or IMAGENET_MEAN,
        _triple(pictures.get("image_std")) or IMAGENET_STD,
        files.weights(),
        _origin(config, files),
    )


def _options(arguments: Mapping[str, object], weights: Path, source: str) -> dict[str, Option]:
    """Return the arguments of timm as options of the model."""
    options: dict[str, Option] = {}
    for key, given in arguments.items():
        if key in NOT_ARGUMENTS or given is None:
            continue
        value = tuple(given) if isinstance(given, list) else given
        if not isinstance(value, (bool, int, float, str, tuple)):
            raise CheckpointError(
                f"the argument {key} in {CONFIG_FILE} is neither a number, a word nor a list",
                where=source,
            )
        options[key] = value
    if not options.get("global_pool", "token"):  # the authors leave the pooling to the user
        options["global_pool"] = "token"
    if "mlp_layer" not in options and _has_gated_mlp(weights):
        # Virchow and UNI 2 pass these in Python, since JSON has no classes.
        options |= {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
    return options


def _has_gated_mlp(path: Path) -> bool:
    """Return whether the first layer of a block's MLP gives two halves, of which one is a gate."""
    first, second = (_shape(path, f"blocks.0.mlp.{layer}.weight") for layer in ("fc1", "fc2"))
    return bool(first and second) and first[0] == 2 * second[1]


def _shape(path: Path, name: str) -> tuple[int, ...]:
    """Return the shape of a tensor in a file without reading it; empty if it is not there."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return tuple(file.get_slice(name).get_shape()) if name in file.keys() else ()  # noqa: SIM118
        check_unpacked_size(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        found = tensors.get(name) if isinstance(tensors, Mapping) else None
        return tuple(found.shape) if isinstance(found, torch.Tensor) else ()
    except Exception:  # noqa: BLE001 - damaged pickles and headers raise errors of every class
        return ()  # reading the weights will say what is wrong with the file


def _origin(facts: Mapping[str, object], files: _Files) -> Origin:
    readme = files.readme()
    front = re.match(r"---\n(.*?)\n---", readme, re.DOTALL)
    lines = front.group(1) if front else ""
    stated = {
        key: match.group(1).strip().strip("\"'")
        for key in ("license_name", "license")
        if (match := re.search(rf"^{key}:[ \t]*(\S.*)$", lines, re.MULTILINE))
    }
    licence = stated.get("license_name") or stated.get("license") or facts.get("license")
    entry = re.search(r"@\w+\{.*?\n\}", readme, re.DOTALL)
    citation = " ".join(entry.group(0).split()) if entry else facts.get("citation")
    return Origin(
        source=files.source,
        licence=str(licence) if licence else None,
        citation=str(citation) if citation else None,
    )


def _read_json(path: Path) -> dict[str, object]:
    found = read_json(path, path.name, error=CheckpointError)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path.name} is not a JSON object", where=str(path))
    return found


def _size(value: object) -> int | None:
    """Return the side of a square image from a number, (3, H, W), or a dict of transformers."""
    if isinstance(value, dict):
        value = value.get("height", value.get("shortest_edge"))
    if isinstance(value, (list, tuple)) and value:
        value = value[-1]
    if isinstance(value, int | float) and 0 < value < MAX_SIDE:
        return int(value)
    return None


def _triple(value: object) -> Triple | None:
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        return None
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in value):
        return None
    red, green, blue = (float(one) for one in value)
    return red, green, blue


def _timm_version() -> str:
    import timm

    return str(timm.__version__)
