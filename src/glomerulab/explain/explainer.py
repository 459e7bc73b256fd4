"""Explain predictions: overlays of saliency maps, and a table of their measures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import CheckpointError, GlomerulabError, ImageFileError, ManifestError
from glomerulab.explain.attribution import (
    Method,
    attribute,
    heatmap_overlay,
    overlay_beside,
    usable_methods,
)
from glomerulab.explain.measures import (
    area,
    centre_control,
    deletion_curve,
    energy_inside,
    insertion_curve,
    points_inside,
    random_control,
    randomised_models,
    rank_correlation,
)
from glomerulab.images import RgbImage, read_image, write_image
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.models.heads import probabilities
from glomerulab.models.preprocessing import read_crop
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.kept import kept
from glomerulab.runtime.names import safe_name
from glomerulab.runtime.parallel import Outcome, Workers, map_outcomes
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.sealing import SealedFolder, open_model_folder
from glomerulab.taxonomy import Taxonomy

__all__ = ["ExplainInput", "Explainer", "Explanations", "find_inputs"]

CONTROLS = ("random", "centre")
"""Maps that do not depend on the model, measured like the methods."""

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
CALLED_FROM = 0.5


@dataclass(frozen=True, slots=True)
class ExplainInput:
    """One image to explain."""

    image_id: str
    path: Path
    patient_id: str | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    """1 or 0 for each known label."""
    masks: Mapping[str, Path] = field(default_factory=dict)
    """Masks of lesions, by label."""

    def absolute(self) -> "ExplainInput":
        """Return the same for a process with another working folder."""
        masks = {label: path.absolute() for label, path in self.masks.items()}
        return replace(self, path=self.path.absolute(), masks=masks)


@dataclass(frozen=True)
class Explanations:
    """The measures of all maps, and the images that could not be explained."""

    table: pd.DataFrame
    """One row per image, label and method (or control): ``image_id``, ``patient_id``, ``label``,
    ``method``, ``probability``, ``labelled`` (1, 0, or empty where unknown), ``called``,
    ``overlay`` (relative path, empty for controls), ``deletion``, ``insertion`` (areas), and where
    there is a mask ``mask_share``, ``points_inside``, ``energy_inside``."""
    failures: tuple[Outcome[str, None], ...]
    """Ids of the images that could not be explained, each with its error."""


class Explainer:
    """A trained model that explains its predictions.

    Parameters
    ----------
    checkpoint : Path
        A run folder, or its ``checkpoint`` folder.
    methods : sequence of Method, optional
        By default all that work for the network.
    seed : int, default 0
        Of the random control and of the random weights of the sanity check.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing or altered, or a method does not work for its network.
    RunError
        If a file is not the one that was sealed.
    """

    def __init__(
        self,
        checkpoint: Path | SealedFolder,
        *,
        methods: Sequence[Method] | None = None,
        seed: int = 0,
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        files = open_model_folder(checkpoint)
        model, self.card = load_checkpoint(files)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        usable = usable_methods(self.model, input_size=self.card.input_size)
        if methods is not None and (refused := [one for one in methods if one not in usable]):
            raise CheckpointError(
                f"the network {self.card.model} has no maps with height and width, which "
                f"{refused[0]} needs; the methods that work for it are {' and '.join(usable)}",
                where=str(files.folder),
            )
        self.methods = usable if methods is None else tuple(methods)
        self.seed = seed
        self._arguments = (files.folder.absolute(), self.methods, seed)

    def explain(
        self,
        inputs: Sequence[ExplainInput],
        out: Path,
        *,
        label_ids: Sequence[str] = (),
        measured: bool = True,
        workers: Workers | None = None,
        track: Track = silent,
    ) -> Explanations:
        """Explain images, write their overlays and measure the maps.

        Parameters
        ----------
        out : Path
            Folder for ``overlays/<image>.<label>.<method>.png``.
        label_ids : sequence of str, default ()
            Only these labels; by default for each image those that the model calls, and those with
            a mask.
        measured : bool, default True
            Whether to compute deletion, insertion and the controls, or only overlays.
        workers : Workers, optional
            Of a cluster, which sees the same paths; each loads the model once.
        """
        make_folder(out / "overlays")
        folder, labels = out.absolute(), tuple(label_ids)
        if workers is None:

            def explain_one(item: tuple[int, ExplainInput]) -> list[dict[str, object]]:
                return self._rows(item[1], folder, labels, item[0], measured=measured)
        else:
            explain_one = partial(
                _explain_there, self._arguments, folder=folder, label_ids=labels, measured=measured
            )
        found: dict[int, Outcome[tuple[int, ExplainInput], list[dict[str, object]]]] = {}
        items = [(index, one.absolute()) for index, one in enumerate(inputs)]
        with closing(map_outcomes(explain_one, items, workers=workers)) as outcomes:
            for outcome in track(outcomes, "Explaining images", len(items)):
                found[outcome.item[0]] = outcome
        in_order = [found[index] for index in range(len(items))]
        rows = [row for one in in_order for row in one.value or ()]
        failures: list[Outcome[str, None]] = [
            Outcome(one.item[1].image_id, None, one.error) for one in in_order if one.error
        ]
        return Explanations(pd.DataFrame(rows), tuple(failures))

    def picture(self, path: Path, label_id: str) -> RgbImage:
        """Draw the saliency for one label over an image file, by the first of the methods.

        The result has the size of the image.
        """
        target = self.card.taxonomy.label_ids.index(label_id)
        saliency = attribute(self.model, self._tensor(path), target, self.methods[0]).numpy()
        return heatmap_overlay(read_image(path), saliency)

    def sanity(
        self, inputs: Sequence[ExplainInput], *, track: Track = silent
    ) -> tuple[pd.DataFrame, tuple[Outcome[str, None], ...]]:
        """Compare the maps of the trained model with those of models with randomised weights.

        Returns
        -------
        table : DataFrame
            One row per image, method and share of random layers: ``image_id``, ``label``,
            ``method``, ``random_share``, ``rank_correlation`` (NaN where a map is empty).
        failures : tuple of Outcome
            Images that could not be read.
        """
        randomised = list(randomised_models(self.model, self.card, seed=self.seed))
        rows: list[dict[str, object]] = []
        failures: list[Outcome[str, None]] = []
        for one in track(inputs, "Randomising weights"):
            try:
                image = self._tensor(one.path)
            except GlomerulabError as error:
                failures.append(Outcome(one.image_id, None, error))
                continue
            target = int(self._probabilities(image).argmax())
            for method in self.methods:
                own = attribute(self.model, image, target, method).numpy()
                for share, model in randomised:
                    other = attribute(model, image, target, method).numpy()
                    rows.append(
                        {
                            "image_id": one.image_id,
                            "label": self.card.labels[target].id,
                            "method": method,
                            "random_share": share,
                            "rank_correlation": rank_correlation(own, other),
                        }
                    )
        return pd.DataFrame(rows), tuple(failures)

    def _rows(
        self, one: ExplainInput, out: Path, label_ids: Sequence[str], index: int, *, measured: bool
    ) -> list[dict[str, object]]:
        pixels, image = read_image(one.path), self._tensor(one.path)
        values = self._probabilities(image)
        rng = np.random.default_rng((self.seed, index))
        masks = {label: read_mask(path, self.card.input_size) for label, path in one.masks.items()}
        called = self._called(values)
        model_labels = self.card.taxonomy.label_ids
        rows: list[dict[str, object]] = []
        for label in label_ids or [x for x in model_labels if x in called or x in masks]:
            target, mask = model_labels.index(label), masks.get(label)
            facts = {
                "image_id": one.image_id,
                "patient_id": one.patient_id,
                "label": label,
                "probability": float(values[target]),
                "labelled": one.labels.get(label),
                "called": int(label in called),
            }
            for method, saliency in self._maps(image, target, rng, with_controls=measured):
                drawn = ""
                if method not in CONTROLS:
                    drawn = f"overlays/{safe_name(one.image_id)}.{label}.{method}.png"
                    write_image(overlay_beside(pixels, saliency, mask=mask), out / drawn)
                measures = self._measures(image, saliency, target, mask) if measured else {}
                rows.append({**facts, "method": method, "overlay": drawn, **measures})
        return rows

    def _maps(
        self, image: Tensor, target: int, rng: np.random.Generator, *, with_controls: bool
    ) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        for method in self.methods:
            yield method, attribute(self.model, image, target, method).numpy()
        if with_controls:
            shape = (image.shape[-2], image.shape[-1])
            yield "random", random_control(shape, rng)
            yield "centre", centre_control(shape)

    def _measures(
        self,
        image: Tensor,
        saliency: npt.NDArray[np.float32],
        target: int,
        mask: npt.NDArray[np.bool_] | None,
    ) -> dict[str, object]:
        order, head = torch.from_numpy(saliency), self.card.head
        measures: dict[str, object] = {
            "deletion": area(deletion_curve(self.model, image, order, target, head=head)),
            "insertion": area(insertion_curve(self.model, image, order, target, head=head)),
        }
        if mask is not None:
            measures |= {
                "mask_share": float(mask.mean()),
                "points_inside": int(points_inside(saliency, mask)),
                "energy_inside": energy_inside(saliency, mask),
            }
        return measures

    def _tensor(self, path: Path) -> Tensor:
        """Read an image as the normalised input of the model, shape (3, S, S)."""
        pixels = read_crop(path, self.card.input_size).float() / 255.0
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.card.mean, self.card.std))
        return ((pixels - mean) / std).to(self.device)

    def _probabilities(self, image: Tensor) -> Tensor:
        with torch.inference_mode():
            return probabilities(self.model(image[None]).float().cpu(), self.card.head)[0]

    def _called(self, values: Tensor) -> set[str]:
        labels = self.card.taxonomy.label_ids
        if self.card.head == "softmax":
            return {labels[int(values.argmax())]}
        return {
            label
            for label, value in zip(labels, values.tolist(), strict=True)
            if value >= CALLED_FROM
        }


def _explain_there(
    arguments: tuple[Path, tuple[Method, ...], int],
    item: tuple[int, ExplainInput],
    *,
    folder: Path,
    label_ids: Sequence[str],
    measured: bool,
) -> list[dict[str, object]]:
    """Explain an image in a worker, which keeps the model."""
    index, one = item
    explainer = kept(_explainer, *arguments)
    return explainer._rows(one, folder, label_ids, index, measured=measured)  # noqa: SLF001


def _explainer(folder: Path, methods: tuple[Method, ...], seed: int) -> Explainer:
    return Explainer(folder, methods=methods, seed=seed)


def find_inputs(
    images: Path, taxonomy: Taxonomy, *, masks: Path | None = None, split: str | None = None
) -> list[ExplainInput]:
    """Find images and their lesion masks.

    Parameters
    ----------
    images : Path
        A manifest, a folder of images, or an image.
    taxonomy : Taxonomy
        Of the model.
    masks : Path, optional
        Folder of ``<image_id>.<label>.png``, as `glomerulab phantom` writes them; by default
        ``masks`` beside the manifest or the folder, if it exists.
    split : str, optional
        Of a manifest, only this part.

    Raises
    ------
    ManifestError
        If a manifest is malformed, or has no image of that part.
    ImageFileError
        If there is no image, or the given folder of masks does not exist.
    """
    if masks is not None and not masks.is_dir():
        raise ImageFileError(f"there is no folder of masks {masks}", where=str(masks))
    mask_folder = masks or images.parent / "masks"
    if images.suffix.lower() in {".csv", ".parquet"}:
        return _from_manifest(images, taxonomy, mask_folder, split)
    if not images.exists():
        raise ImageFileError(
            "there is no such manifest, folder or image; give one of them", where=str(images)
        )
    paths = [images]
    if images.is_dir():
        paths = sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise ImageFileError(
                f"the folder {images.name} holds no image; give a folder of "
                f"{', '.join(sorted(IMAGE_SUFFIXES))} files, a manifest, or an image",
                where=str(images),
            )
    return [
        ExplainInput(path.stem, path, masks=_masks(mask_folder, path.stem, taxonomy))
        for path in paths
    ]


def read_mask(path: Path, size: int) -> npt.NDArray[np.bool_]:
    """Read the mask of a lesion at the input size of the model.

    Parameters
    ----------
    path : Path
        An image with the aspect of the crop; every pixel that is not black is lesion.
    size : int
        Height and width of the result, px.

    Returns
    -------
    ndarray of bool, shape (size, size)
        True where at least half of the pixel is lesion; a lesion smaller than that is kept
        wherever it touches.

    Raises
    ------
    ImageFileError
        If the file cannot be read, or no pixel is lesion.
    """
    lesion = read_image(path).max(axis=2) > 0
    if not lesion.any():
        raise ImageFileError(
            f"the mask {path.name} is empty: every pixel is black; mark the lesion, or remove the "
            "file",
            where=str(path),
        )
    grey = Image.fromarray(lesion.astype(np.uint8) * 255)
    shares = np.asarray(grey.resize((size, size), Image.Resampling.BOX))
    half = shares >= 128
    return np.asarray(half if half.any() else shares > 0, dtype=np.bool_)


def _from_manifest(
    path: Path, taxonomy: Taxonomy, masks: Path, split: str | None
) -> list[ExplainInput]:
    manifest = read_manifest(path)
    known = [label for label in taxonomy.label_ids if label in manifest.taxonomy.label_ids]
    inputs = []
    rows = manifest.table.to_dict("records")
    for row, image in zip(rows, manifest.image_paths(), strict=True):
        if split is not None and (pd.isna(row["split"]) or row["split"] != split):
            continue
        image_id = str(row["image_id"])
        inputs.append(
            ExplainInput(
                image_id,
                image,
                None if pd.isna(row["patient_id"]) else str(row["patient_id"]),
                {label: int(row[label]) for label in known if not pd.isna(row[label])},
                _masks(masks, image_id, taxonomy),
            )
        )
    if not inputs:
        part = "" if split is None else f" of split {split!r}"
        raise ManifestError(f"the manifest holds no image{part} to explain", where=str(path))
    return inputs


def _masks(folder: Path, image_id: str, taxonomy: Taxonomy) -> dict[str, Path]:
    paths = {label: folder / f"{image_id}.{label}.png" for label in taxonomy.label_ids}
    return {label: path for label, path in paths.items() if path.is_file()}
