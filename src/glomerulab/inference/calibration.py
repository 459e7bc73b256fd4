"""What decides whether an answer is trusted, fitted once and kept in the run folder.

Temperature, conformal threshold, the cloud of training features, sharpness, the stains that were
seen and the stain references: with it a run's folder is all that applying it needs. Without torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from glomerulab.errors import CheckpointError, StainError
from glomerulab.runtime.messages import first_problem
from glomerulab.runtime.sealing import read_bundle, write_bundle
from glomerulab.stain.reference import StainReference, reference_from_json

__all__ = ["GATES_FOLDER", "GateFacts", "Gates", "has_gates", "read_gates", "write_gates"]

GATES_FOLDER = "gates"
NAME = "gates"
FORMAT = 2
"""1 had the last stage's features only."""

FloatArray = npt.NDArray[np.float64]


class GateFacts(BaseModel):
    """The numbers among the gates."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = FORMAT
    weights_sha256: str
    """Of the model they were fitted for."""
    temperature: float
    coverage: float
    conformal_threshold: float
    n_validation: int
    distance_threshold: float
    sharpness_threshold: float
    n_training_images: int
    n_training_patients: int
    stains_seen: dict[str, int]
    trained_on_synthetic: bool
    test_summary: str
    test_summary_zh: str = ""


@dataclass(frozen=True, eq=False)
class Gates:
    """Everything between a network's answer and a call."""

    facts: GateFacts
    class_means: npt.NDArray[np.float32]
    """Shape (C, D): mean features of the training images of each set of labels."""
    whitening: npt.NDArray[np.float32]
    """Shape (D, D): turns differences of features into distances."""
    references: Mapping[str, StainReference]
    """By stain; empty if the run's images were not normalised."""

    @property
    def mark(self) -> str:
        """Tells these gates, and the model they are for, from all others."""
        return f"{self.facts.weights_sha256}-{self.facts.distance_threshold!r}"

    def distances(self, features: npt.NDArray[np.float32]) -> FloatArray:
        """Return how far images lie from the nearest class of training images.

        Parameters
        ----------
        features : ndarray of float, shape (B, D)

        Returns
        -------
        ndarray of float64, shape (B,)
            Mahalanobis' distance with one covariance for all classes.
        """
        return nearest(features, self._cloud)

    @cached_property
    def _cloud(self) -> "Cloud":
        return whitened(self.class_means, self.whitening)


@dataclass(frozen=True, eq=False)
class Cloud:
    """Where the training images lie, in coordinates in which distance is Mahalanobis'."""

    middle: npt.NDArray[np.float32]
    """Shape (D,): of the class means, as features."""
    whitening: npt.NDArray[np.float32]
    """Shape (D, D): L of the precision matrix L L'."""
    centres: npt.NDArray[np.float32]
    """Shape (C, D): of the classes, from the middle, whitened."""


def whitened(class_means: npt.NDArray[np.float32], whitening: npt.NDArray[np.float32]) -> Cloud:
    """Prepare what every distance needs.

    Parameters
    ----------
    class_means : ndarray of float, shape (C, D)
    whitening : ndarray of float, shape (D, D)
        L of the precision matrix L L'.

    Returns
    -------
    Cloud
    """
    middle = class_means.mean(axis=0)
    return Cloud(middle, whitening, (class_means - middle) @ whitening)


def nearest(features: npt.NDArray[np.float32], cloud: Cloud) -> FloatArray:
    """Return the distance of each image to the nearest class mean.

    Parameters
    ----------
    features : ndarray of float, shape (B, D)
    cloud : Cloud

    Returns
    -------
    ndarray of float64, shape (B,)
    """
    # Single precision, or every call would copy the whitening: 60 MB for 3,840 features. Measured
    # from the middle of the classes, so that little is lost where features are large.
    rows = (features - cloud.middle) @ cloud.whitening  # (B, D)
    differences = (rows[:, None] - cloud.centres[None]).astype(np.float64)  # (B, C, D)
    distances: FloatArray = np.linalg.norm(differences, axis=2).min(axis=1)
    return distances


def has_gates(folder: Path) -> bool:
    """Say whether a run folder holds its gates."""
    return (folder / GATES_FOLDER / f"{NAME}.json").is_file()


def write_gates(gates: Gates, folder: Path) -> None:
    """Write the gates into a run folder, whole or not at all.

    Parameters
    ----------
    gates : Gates
    folder : Path
        The run folder.
    """
    content = save({"class_means": gates.class_means, "whitening": gates.whitening})
    facts = gates.facts.model_dump(mode="json")
    facts["stain_references"] = {stain: asdict(one) for stain, one in gates.references.items()}
    write_bundle(folder / GATES_FOLDER, NAME, content, facts)


def read_gates(folder: Path) -> Gates:
    """Read the gates of a run folder.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Gates

    Raises
    ------
    CheckpointError
        If they are missing, altered or malformed.
    """
    content, found = read_bundle(folder / GATES_FOLDER, NAME)
    where = str(folder / GATES_FOLDER / f"{NAME}.json")
    references = found.pop("stain_references", {})
    try:
        facts = GateFacts.model_validate(found)
        if facts.format != FORMAT:
            raise CheckpointError(
                "the gates were fitted by another version; run `glomerulab gates RUN` again, and "
                "export again what was exported",
                where=where,
            )
        arrays = load(content)
        if not isinstance(references, dict):
            raise CheckpointError("stain_references must be an object", where=where)
        return Gates(
            facts,
            arrays["class_means"],
            arrays["whitening"],
            {stain: reference_from_json(one) for stain, one in references.items()},
        )
    except ValidationError as error:
        raise CheckpointError(first_problem(error), where=where) from error
    except (SafetensorError, KeyError, TypeError, ValueError, StainError) as error:
        raise CheckpointError(f"not valid gates: {error!r}", where=where) from error
