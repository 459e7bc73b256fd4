"""Read the weights of one network from a file, as training programs write them.

A file may hold several networks (teacher and student, a moving average), each below a prefix that
its program has chosen (``state_dict``, ``model.backbone.``, ``module.``). The prefix below which
most tensors have a name and a shape of the network is the one that is used. Reading never executes
code of the file.
"""

import inspect
import pickle
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from glomerulab.errors import CheckpointError
from glomerulab.models.layers import head_layers
from glomerulab.models.transfer.hugging_face import is_of_transformers, to_timm

__all__ = ["FileWeights", "check_unpacked_size", "read_weights", "shortened"]

WRAPPER_LAYERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
"""Names that torch inserts between those of layers."""
PREFERRED = re.compile(r"(?:^|[._])(?:teacher|ema|online|encoder_q|base_encoder)(?:[._]|$)")
AVOIDED = re.compile(
    r"(?:^|[._])(?:student|target|momentum|encoder_k|optimizer\w*|optim)(?:[._]|$)"
)
"""Of several sets of weights for one network, authors evaluate the preferred ones."""
TIE = 0.9
"""Sets with at least this share of the most fitting tensors are alternatives."""
MAX_DEPTH = 64
MAX_UNPACKED_RATIO = 20
"""Of an archive: torch does not compress, others rarely to less than half."""


@dataclass(frozen=True, slots=True)
class FileWeights:
    """The tensors of a file that belong to one network."""

    tensors: dict[str, Tensor]
    """By the names of the network, on the CPU."""
    prefix: str = ""
    """What was removed from the names in the file."""
    alternatives: tuple[str, ...] = ()
    """Prefixes of other sets for the same network, which are not used."""
    outside: tuple[str, ...] = ()
    """Names of the tensors that belong to no such set, such as a projection head's."""


def read_weights(path: Path, *networks: nn.Module) -> FileWeights:
    """Read the tensors for a network from a file.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or under any other suffix a file of ``torch.save``: a dict of tensors, any
        nesting of dicts that contains one, or a whole pickled model.
    *networks : Module
        Of several, the one whose tensors fit best counts; the first on a tie. Not changed.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged, or holds no tensor that fits; the message shows the first
        names of the file and of the first network.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in _named_tensors(_read(path)):
        found.setdefault(WRAPPER_LAYERS.sub("", name), tensor)
    if not found:
        raise CheckpointError(f"{path.name} holds no named tensors", where=str(path))
    if is_of_transformers(found):
        found = to_timm(found)
    chosen = [_weights_for(network, found) for network in networks]
    n_fitting, best = max(chosen, key=lambda pair: pair[0])
    if n_fitting == 0:
        network = networks[0]
        raise CheckpointError(
            f"none of the {len(found)} tensors in {path.name} fits {type(network).__name__} by "
            f"name and shape: the file begins with {shortened(tuple(found))}, the network with "
            f"{shortened(tuple(network.state_dict()))}; give weights of this network, or the "
            "network of these weights",
            where=str(path),
        )
    _check_finite(best.tensors, path)
    return best


def shortened(names: tuple[str, ...], n_shown: int = 3) -> str:
    """Return the first names, and the number of the others."""
    more = len(names) - n_shown
    return ", ".join(names[:n_shown]) + (f" and {more} more" if more > 0 else "")


def _read(path: Path) -> object:
    where = str(path)
    try:
        _check_beginning(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        check_unpacked_size(path)
        return _load_without_code(path)
    except OSError as error:
        raise CheckpointError(
            f"the weights cannot be read: {error.strerror or error}", where=where
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} holds more than tensors, and reading it could execute code, or it is not "
            "a file of weights; save the state_dict() as .safetensors where the file comes from",
            where=where,
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # damaged pickles and headers raise errors of every class
        raise CheckpointError(
            f"{path.name} is not a file of weights: {_first_line(error)}", where=where
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines and lines[0] else type(error).__name__


def check_unpacked_size(path: Path) -> None:
    """Reject an archive that unpacks to far more than its size: weights are not compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            n_bytes = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return  # no archive; whoever reads it says what is wrong
    if n_bytes > MAX_UNPACKED_RATIO * path.stat().st_size:
        raise CheckpointError(
            f"{path.name} would unpack to {n_bytes / 1e6:,.0f} MB, which files of weights do not; "
            "save the state_dict() as .safetensors where the file comes from",
            where=str(path),
        )


def _check_beginning(path: Path) -> None:
    """Reject what a failed download leaves in place of a file of weights."""
    with path.open("rb") as file:
        beginning = file.read(1000).lstrip().lower()
    if beginning.startswith(b"version https://git-lfs"):
        problem = "is a pointer of Git LFS, not the file itself; run `git lfs pull` in its folder"
    elif beginning.startswith((b"<!doctype", b"<html", b"<?xml")):
        problem = "is a web page, not a file of weights; download the file itself"
    elif not beginning:
        problem = "is empty; download or copy it again"
    else:
        return
    raise CheckpointError(f"{path.name} {problem}", where=str(path))


class _Inert:
    """Stands for an object of a pickle that is not a tensor; its class is never imported."""

    def __new__(cls, *_args: object, **_options: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *_args: object, **_options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass


def _load_without_code(path: Path) -> object:
    """Load with torch's restricted reader; classes that it does not know become inert."""
    try:
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001 - before torch 1.6, or damaged, which loading names
        unknown = []
    inert: list[tuple[Callable[..., object], str]] = [
        (type(name.rpartition(".")[2], (_Inert,), {}), name) for name in unknown
    ]
    with torch.serialization.safe_globals(list(inert)):
        return torch.load(path, map_location="cpu", weights_only=True)


def _named_tensors(
    content: object, prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in dicts and pickled modules, with the path to it as a dotted name."""
    if isinstance(content, _Inert):
        inner = vars(content)
        layers = [inner.get(kind) for kind in ("_parameters", "_buffers", "_modules")]
        groups = [group for group in layers if isinstance(group, Mapping)]
    else:
        groups = [content] if isinstance(content, Mapping) else []
    for group in groups:
        for key, value in group.items():
            name = f"{prefix}{key}"
            if isinstance(value, Tensor):
                yield name, value.detach()
            elif depth < MAX_DEPTH:
                yield from _named_tensors(value, f"{name}.", depth + 1)


def _weights_for(model: nn.Module, found: Mapping[str, Tensor]) -> tuple[int, FileWeights]:
    """Return the tensors for a network, and how many fit by name and shape."""
    own = model.state_dict()
    chosen = _choose(found, own)
    best = _n_fitting(chosen.tensors, own)
    for prefix in (chosen.prefix,) if best else ("", *_common_prefixes(found)):
        converted = _converted(_below(found, prefix), model)
        if (n := _n_fitting(converted, own)) > best:
            best = n
            chosen = FileWeights(converted, prefix, chosen.alternatives, chosen.outside)
    return best, chosen


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    damaged = tuple(
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    )
    if damaged:
        raise CheckpointError(
            f"{len(damaged)} tensors in {path.name} hold NaN or infinite values "
            f"({shortened(damaged)}); take the weights of an earlier epoch",
            where=str(path),
        )


def _choose(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> FileWeights:
    """Return the set of tensors that fits best; empty if no tensor fits."""
    counts: Counter[str] = Counter()
    for key, tensor in found.items():
        parts = key.split(".")
        for start in range(len(parts)):
            name = ".".join(parts[start:])
            if name in own and own[name].shape == tensor.shape:
                counts[key[: len(key) - len(name)]] += 1
    if not counts:
        return FileWeights({})
    most = max(counts.values())
    tied = [prefix for prefix, count in counts.items() if count >= TIE * most]
    prefix = max(tied, key=lambda prefix: (_preference(prefix), counts[prefix]))
    others = tuple(other for other in tied if other != prefix)
    used_or_other = (prefix, *others)
    outside = tuple(key for key in found if not key.startswith(used_or_other))
    return FileWeights(_below(found, prefix), prefix, others, outside)


def _preference(prefix: str) -> int:
    return bool(PREFERRED.search(prefix)) - bool(AVOIDED.search(prefix))


def _n_fitting(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> int:
    return sum(key in own and own[key].shape == tensor.shape for key, tensor in tensors.items())


def _below(found: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): tensor for key, tensor in found.items() if key.startswith(prefix)
    }


def _common_prefixes(found: Mapping[str, Tensor]) -> list[str]:
    """Return the prefixes that at least half of the tensors share, the shortest first."""
    counts: Counter[str] = Counter()
    for key in found:
        parts = key.split(".")
        counts.update(".".join(parts[:end]) + "." for end in range(1, len(parts)))
    return sorted((prefix for prefix, n in counts.items() if 2 * n >= len(found)), key=len)


def _converted(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename and resize the tensors of a network's authors by timm's own function for it.

    Position embeddings are resampled to the input size of `model`.
    """
    if "_conv_stem.weight" in tensors:
        return _by_order(tensors, model)
    module = sys.modules[type(model).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    if convert is None or not module.__name__.startswith("timm."):
        return {}
    arguments = (tensors, model) if "model" in inspect.signature(convert).parameters else (tensors,)
    try:
        found = convert(*arguments)
    except (KeyError, ValueError, RuntimeError, AttributeError, IndexError, AssertionError):
        return {}  # the names of another network
    return {key: value for key, value in found.items() if isinstance(value, Tensor)}


def _by_order(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Name the tensors of EfficientNet-PyTorch and its derivatives as timm does.

    Both have the same tensors in the same order, which their shapes confirm.
    """
    own = {key: value for key, value in model.state_dict().items() if not _is_counter(key)}
    theirs = [tensor for key, tensor in tensors.items() if not _is_counter(key)]
    head = tuple(f"{layer}." for layer in head_layers(model))
    if len(own) != len(theirs) or any(
        one.shape != other.shape and not key.startswith(head)
        for (key, one), other in zip(own.items(), theirs, strict=True)
    ):
        return {}
    return dict(zip(own, theirs, strict=True))


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")
