"""A detector: a run that tells glomeruli from other tissue, and what it takes to apply it.

``detector.json`` in its folder holds from which score its proposals count and how much larger than
its blobs glomeruli are; `fit_detector` finds both on slides of the validation part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from glomerulab.cases.case_folder import DetectorFacts
from glomerulab.errors import CheckpointError
from glomerulab.geometry import Region
from glomerulab.inference.engines.base import Engine, open_engine
from glomerulab.inference.proposals import Blob, blob_outline, find_blobs
from glomerulab.inference.score_map import score_map
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.messages import first_problem
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL, Proposal
from glomerulab.slides.slide import Slide

__all__ = [
    "DETECTOR_FILE",
    "Detector",
    "DetectorCard",
    "is_detector",
    "open_detector",
    "write_detector_card",
]

DETECTOR_FILE = "detector.json"


class DetectorCard(BaseModel):
    """What a detector needs besides its network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    weights_sha256: str
    """Of the network it was fitted for."""
    score_threshold: float
    """Score from which a proposal counts."""
    growth: float
    """Radius of a glomerulus over that of its blob."""
    n_validation_slides: int
    stains_seen: tuple[str, ...]
    trained_on_synthetic: bool
    test_summary: str
    """How it did on held-out slides, in one sentence; empty without such slides."""
    test_summary_zh: str = ""


@dataclass(frozen=True)
class Detector:
    """A network and its card, ready to look at slides."""

    engine: Engine
    card: DetectorCard
    run: str
    """Name of its folder."""

    def propose(self, slide: Slide, slide_id: str) -> list[Proposal]:
        """Propose glomeruli.

        Parameters
        ----------
        slide : Slide
        slide_id : str
            Stands in the region ids: a number alone could be taken for the same glomerulus on
            another section.

        Returns
        -------
        list of Proposal
            Highest score first.
        """
        blobs = find_blobs(score_map(slide, self.engine))
        return self.proposals_of(blobs, slide_id)

    def proposals_of(self, blobs: Sequence[Blob], slide_id: str) -> list[Proposal]:
        """Turn blobs that score enough into regions."""
        kept = [blob for blob in blobs if blob.score >= self.card.score_threshold]
        return [
            Proposal(
                Region(
                    f"{slide_id} proposal {number}",
                    blob_outline(blob, growth=self.card.growth),
                    (PROPOSAL_LABEL,),
                ),
                blob.score,
            )
            for number, blob in enumerate(kept, start=1)
        ]

    @property
    def facts(self) -> DetectorFacts:
        """What stands in a predictions folder of it."""
        return DetectorFacts(
            run=self.run,
            weights_sha256=self.engine.weights_sha256,
            score_threshold=self.card.score_threshold,
            test_summary=self.card.test_summary,
            test_summary_zh=self.card.test_summary_zh,
            trained_on_synthetic=self.card.trained_on_synthetic,
        )


def is_detector(folder: Path) -> bool:
    """Say whether a folder holds a detector and not a classifier of glomeruli."""
    return (folder / DETECTOR_FILE).is_file()


def open_detector(folder: Path) -> Detector:
    """Open what ``train-detector`` made, or its export.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Detector

    Raises
    ------
    CheckpointError
        If it is no detector, or its card is damaged or of another network.
    """
    path = folder / DETECTOR_FILE
    if folder.is_dir() and not path.is_file():
        raise CheckpointError(
            "is no detector: it has no detector.json; `glomerulab train-detector` makes one",
            where=str(folder),
        )
    try:
        card = DetectorCard.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValidationError as error:
        raise CheckpointError(first_problem(error), where=str(path)) from error
    engine = open_engine(folder)
    if engine.weights_sha256 != card.weights_sha256:
        raise CheckpointError(
            "its detector.json was fitted for other weights; run `glomerulab train-detector` again",
            where=str(folder),
        )
    return Detector(engine, card, folder.resolve().name)


def write_detector_card(card: DetectorCard, folder: Path) -> None:
    """Write the card of a detector into its run folder, whole or not at all."""
    with atomic_write(folder / DETECTOR_FILE) as temporary:
        temporary.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
