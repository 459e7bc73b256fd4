"""Glomeruli that a segmenter outlines on a slide, as regions for a classifier."""

from dataclasses import dataclass
from pathlib import Path

from glomerulab.cases.case_folder import DetectorFacts, Note
from glomerulab.errors import CheckpointError
from glomerulab.geometry import Region
from glomerulab.inference.outlines import write_outlined
from glomerulab.inference.segmenter import Segmenter, open_segmenter
from glomerulab.inference.slide_segmenter import segment_slide
from glomerulab.runtime.files import partial_folder
from glomerulab.runtime.messages import did_you_mean
from glomerulab.runtime.progress import Track, silent
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL, Proposal
from glomerulab.slides.slide import Slide
from glomerulab.structures.instances import find_objects
from glomerulab.structures.maps import LAYERS
from glomerulab.structures.polygons import object_polygon, rings

__all__ = ["GLOMERULUS", "Detections", "Detector", "open_detector"]

GLOMERULUS = "glomerulus"


@dataclass(frozen=True, slots=True)
class Detections:
    """The glomeruli of a slide, and what the user must know of them."""

    proposals: tuple[Proposal, ...]
    """From the upper left to the lower right."""
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Detector:
    """A segmenter that knows glomeruli."""

    segmenter: Segmenter
    run: str
    """Name of its folder."""

    @property
    def knows_tissue(self) -> bool:
        """Whether it outlines what a report measures besides glomeruli."""
        return not {"cortex", "artery"}.isdisjoint(self.segmenter.card.structures)

    def propose(
        self,
        slide: Slide,
        slide_id: str,
        folder: Path,
        *,
        structures: Path | None = None,
        stain: str | None = None,
        track: Track = silent,
    ) -> Detections:
        """Outline the glomeruli of a slide.

        Region ids contain `slide_id`: a number alone could be taken for the same glomerulus on
        another section. The score of a region is the share of its pixels that are certain.

        Parameters
        ----------
        folder : Path
            Holds the map of structures while it is needed, up to 8 bytes per pixel.
        structures : Path, optional
            Gets the areas, counts and measures of all structures, as a slide's folder of
            ``glomerulab segment``.
        stain : str, optional
            Of the slide, for `structures`.
        """
        with partial_folder(folder / "map") as temporary:
            done = segment_slide(slide, self.segmenter, temporary, track=track)
            if structures is not None:
                write_outlined(
                    done,
                    slide,
                    structures,
                    segmenter=self.segmenter,
                    run=self.run,
                    formats=["csv"],
                    slide_id=slide_id,
                    stain=stain,
                )
            frame = done.map.frame
            found = sorted(
                find_objects(done.map, [GLOMERULUS]),
                key=lambda one: one.first_pixel,
            )
        proposals = []
        for number, one in enumerate(found, start=1):
            outline, holes = rings(object_polygon(one, frame))
            name = f"{slide_id} proposal {number}"
            region = Region(name, outline, (PROPOSAL_LABEL,), holes=holes)
            proposals.append(Proposal(region, one.certainty))
        return Detections(tuple(proposals), done.notes)

    @property
    def facts(self) -> DetectorFacts:
        """What a predictions folder states about the detector."""
        card = self.segmenter.card
        return DetectorFacts(
            run=self.run,
            weights_sha256=card.weights_sha256,
            score_threshold=LAYERS["likely"],
            test_summary=card.test_summary,
            test_summary_zh=card.test_summary_zh,
            trained_on_synthetic=card.trained_on_synthetic,
        )


def open_detector(folder: Path) -> Detector:
    """Open a segmenter that outlines glomeruli; errors also as for `open_segmenter`.

    Raises
    ------
    CheckpointError
        If it does not know glomeruli, or the folder holds a detector of an earlier version.
    """
    segmenter = open_segmenter(folder)
    if GLOMERULUS not in segmenter.card.structures:
        known = ", ".join(segmenter.card.structures)
        raise CheckpointError(
            f"the segmenter knows no glomerulus (its structures are {known}"
            f"{did_you_mean(GLOMERULUS, segmenter.card.structures)}); give one that was trained "
            "with glomerulus masks",
            where=str(folder),
        )
    return Detector(segmenter, folder.resolve().name)
