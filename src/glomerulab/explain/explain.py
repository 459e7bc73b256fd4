"""From a checkpoint and images to overlays, and to one row per image, label and method.

The only module of this package that writes files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from glomerulab.errors import GlomerulabError
from glomerulab.explain.attribution import METHODS, Method, attribute
from glomerulab.explain.measures import (
    centre_control,
    energy_inside,
    points_inside,
    random_control,
)
from glomerulab.explain.overlay import laid_over, overlay
from glomerulab.explain.perturbation import area, deletion_curve, insertion_curve
from glomerulab.explain.sanity import randomised, rank_correlation
from glomerulab.explain.targets import Subject, read_mask
from glomerulab.images import RgbImage, read_image, write_image
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.models.heads import probabilities
from glomerulab.models.preprocessing import read_crop
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.parallel import Outcome
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.sealing import require_run_folder

__all__ = ["CONTROLS", "Explained", "Explainer"]

CONTROLS = ("random", "centre")
"""Maps that know nothing of the model, measured like the methods."""

CALLED_FROM = 0.5


@dataclass(frozen=True)
class Explained:
    """What was found."""

    table: pd.DataFrame
    """One row per image, label and method (or control): ``image_id``, ``patient_id``, ``label``,
    ``method``, ``probability``, ``labelled`` (1, 0, or empty where unknown), ``called``,
    ``overlay`` (relative path, empty for controls), ``deletion``, ``insertion`` (areas), and where
    there is a mask ``mask_share``, ``points_inside``, ``energy_inside``."""
    failures: tuple[Outcome[str, None], ...]
    """Ids of the images that could not be explained, each with its error."""


class Explainer:
    """A checkpoint that is ready to be asked for its reasons.

    Parameters
    ----------
    checkpoint : Path
        A run folder, or its ``checkpoint`` folder.
    methods : sequence of Method, default all
    seed : int, default 0
        Of the random control and of the random weights of the sanity check.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing or altered.
    """

    def __init__(
        self, checkpoint: Path, *, methods: Sequence[Method] = METHODS, seed: int = 0
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        require_run_folder(checkpoint)
        model, self.card = load_checkpoint(checkpoint)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self.methods = methods
        self.seed = seed

    def explain(
        self,
        subjects: Sequence[Subject],
        out: Path,
        *,
        label_ids: Sequence[str] = (),
        measured: bool = True,
        track: Track = silent,
    ) -> Explained:
        """Explain images, write their overlays and measure the maps.

        Parameters
        ----------
        subjects : sequence of Subject
        out : Path
            Gets ``overlays/<image>.<label>.<method>.png``.
        label_ids : sequence of str, default ()
            Only these labels; by default of each image those that the model calls, and those that
            have a mask.
        measured : bool, default True
            Whether deletion, insertion and the controls are computed, or only overlays.
        track : Track, default silent

        Returns
        -------
        Explained
        """
        make_folder(out / "overlays")
        rows: list[dict[str, object]] = []
        failures: list[Outcome[str, None]] = []
        for place, subject in enumerate(track(subjects, "Explaining images")):
            try:
                rows += self._rows(subject, out, label_ids, place, measured=measured)
            except GlomerulabError as error:
                failures.append(Outcome(subject.image_id, None, error))
        return Explained(pd.DataFrame(rows), tuple(failures))

    def picture(self, path: Path, label_id: str) -> RgbImage:
        """Draw where the model looked for one label, by the first of the methods.

        Parameters
        ----------
        path : Path
            An image as the model is shown it.
        label_id : str
            One of the model's.

        Returns
        -------
        ndarray of uint8, shape (H, W, 3)
            As large as the image.
        """
        target = [label.id for label in self.card.labels].index(label_id)
        image = self._tensor(Subject("", path))
        saliency = attribute(self.model, image, target, self.methods[0]).numpy()
        return laid_over(read_image(path), saliency)

    def sanity(
        self, subjects: Sequence[Subject], *, track: Track = silent
    ) -> tuple[pd.DataFrame, tuple[Outcome[str, None], ...]]:
        """Compare the maps of the trained model with those of models that forgot.

        Parameters
        ----------
        subjects : sequence of Subject
        track : Track, default silent

        Returns
        -------
        table : DataFrame
            One row per image, method and share of random layers: ``image_id``, ``label``,
            ``method``, ``random_share``, ``rank_correlation`` (NaN where a map is empty).
        failures : tuple of Outcome
            Images that could not be read.
        """
        forgotten = list(randomised(self.model, self.card, seed=self.seed))
        rows: list[dict[str, object]] = []
        failures: list[Outcome[str, None]] = []
        for subject in track(subjects, "Randomising weights"):
            try:
                image = self._tensor(subject)
            except GlomerulabError as error:
                failures.append(Outcome(subject.image_id, None, error))
                continue
            target = int(self._said(image).argmax())
            for method in self.methods:
                own = attribute(self.model, image, target, method).numpy()
                for share, model in forgotten:
                    other = attribute(model, image, target, method).numpy()
                    rows.append(
                        {
                            "image_id": subject.image_id,
                            "label": self.card.labels[target].id,
                            "method": method,
                            "random_share": share,
                            "rank_correlation": rank_correlation(own, other),
                        }
                    )
        return pd.DataFrame(rows), tuple(failures)

    def _rows(
        self, subject: Subject, out: Path, label_ids: Sequence[str], place: int, *, measured: bool
    ) -> list[dict[str, object]]:
        pixels, image = read_image(subject.path), self._tensor(subject)
        said = self._said(image)
        rng = np.random.default_rng((self.seed, place))
        masks = {n: read_mask(path, self.card.input_size) for n, path in subject.masks.items()}
        called = self._called(said)
        names = [label.id for label in self.card.labels]
        wanted = label_ids or [n for n in names if n in called or n in masks]
        found: list[dict[str, object]] = []
        for label in wanted:
            target, mask = names.index(label), masks.get(label)
            about = {
                "image_id": subject.image_id,
                "patient_id": subject.patient_id,
                "label": label,
                "probability": float(said[target]),
                "labelled": subject.labels.get(label),
                "called": int(label in called),
            }
            for method, saliency in self._maps(image, target, rng, with_controls=measured):
                drawn = ""
                if method not in CONTROLS:
                    drawn = f"overlays/{_file_name(subject.image_id)}.{label}.{method}.png"
                    write_image(overlay(pixels, saliency, mask=mask), out / drawn)
                measures = self._measures(image, saliency, target, mask) if measured else {}
                found.append({**about, "method": method, "overlay": drawn, **measures})
        return found

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
        found: dict[str, object] = {
            "deletion": area(deletion_curve(self.model, image, order, target, head=head)),
            "insertion": area(insertion_curve(self.model, image, order, target, head=head)),
        }
        if mask is not None:
            found |= {
                "mask_share": float(mask.mean()),
                "points_inside": int(points_inside(saliency, mask)),
                "energy_inside": energy_inside(saliency, mask),
            }
        return found

    def _tensor(self, subject: Subject) -> Tensor:
        """Read an image as the model is given it, shape (3, S, S)."""
        pixels = read_crop(subject.path, self.card.input_size).float() / 255.0
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.card.mean, self.card.std))
        return ((pixels - mean) / std).to(self.device)

    def _said(self, image: Tensor) -> Tensor:
        with torch.inference_mode():
            return probabilities(self.model(image[None]).float().cpu(), self.card.head)[0]

    def _called(self, said: Tensor) -> set[str]:
        names = [label.id for label in self.card.labels]
        if self.card.head == "softmax":
            return {names[int(said.argmax())]}
        return {
            name for name, value in zip(names, said.tolist(), strict=True) if value >= CALLED_FROM
        }


def _file_name(image_id: str) -> str:
    """Keep an id from leaving the folder."""
    return image_id.replace("/", "_").replace("\\", "_")
