"""What a report needs of each slide: facts, an overview picture, and a detector's proposals."""

from collections.abc import Sequence
from pathlib import Path

from glomerulab.cases.case_folder import Note, SlideFacts
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import GlomerulabError
from glomerulab.images import write_image
from glomerulab.inference.detector import GLOMERULUS, Detector, open_detector
from glomerulab.pipeline.crop_plan import Failure
from glomerulab.pipeline.proposals import PROPOSALS_FOLDER, check_proposals, propose
from glomerulab.runtime.files import StrPath, make_folder
from glomerulab.runtime.names import hashed_name
from glomerulab.runtime.progress import Track
from glomerulab.slides.cutting import close_current_slide, current_slide
from glomerulab.slides.files import dicom_reference
from glomerulab.slides.slide import Slide
from glomerulab.structures.summary import STRUCTURES_FOLDER

__all__ = ["SlideReader"]

MAPS_FOLDER = "maps"
MAP_PX = 1600
MAP_QUALITY = 85


class SlideReader:
    """Reads what a report needs of each slide, and has a detector propose regions on it."""

    def __init__(
        self,
        entries: Sequence[SlideEntry],
        out: Path,
        *,
        detector: StrPath | Detector | None,
        mpp_override: float | None,
        stain: str | None,
        track: Track,
    ) -> None:
        self.facts: list[SlideFacts] = []
        self.failures: list[Failure] = []
        """Slides on which the detector could not be run."""
        self.scores: dict[tuple[str, str], float] = {}
        self.empty_slides: list[str] = []
        """Slides on which the detector proposed nothing."""
        self.patients = {entry.slide_id: entry.patient_id for entry in entries}
        self.proposals_folder = out / PROPOSALS_FOLDER
        self.detector: Detector | None = None
        self._out = out
        self._mpp_override = mpp_override
        self._stain = stain
        self._track = track
        self._stains: set[str] = set()
        self._notes: list[Note] = []
        if detector is not None:
            if not isinstance(detector, Detector):
                detector = open_detector(Path(detector))
            self.detector = detector
            make_folder(self.proposals_folder)
            for entry in entries:  # refuse work of people before any slide is read
                check_proposals(entry, detector, self.proposals_folder)

    def inspect(self, entry: SlideEntry) -> None:
        """Read one slide, which stays open for its crops to be cut."""
        override = self._mpp_override or entry.mpp
        try:
            self.facts.append(self._facts(entry, current_slide(entry.path, mpp_override=override)))
        except GlomerulabError:  # reported when its regions are cut
            close_current_slide()
        if self.detector is None:
            return
        try:
            self._propose(entry, self.detector, override)
        except GlomerulabError as error:
            close_current_slide()
            self.failures.append(Failure(entry.slide_id, "", str(error)))

    def notes(self) -> list[Note]:
        """Return the notes on the detector's proposals."""
        if self.detector is None:
            return []
        found = [
            Note.of(
                "The detector proposed nothing on slide {slide}.",
                case=self.patients[name] or name,
                slide=name,
            )
            for name in self.empty_slides
        ]
        found += self._notes
        card = self.detector.segmenter.card
        if (dice := card.hardly_found.get(GLOMERULUS)) is not None:
            found.append(
                Note.of(
                    "The detector hardly finds glomeruli: its Dice on images that it never saw is "
                    "{n}.",
                    n=f"{dice:.2f}",
                )
            )
        seen = card.stains_seen
        unseen = self._stains - {*seen, "None"}
        if seen and unseen:
            found.append(
                Note.of(
                    "The detector was trained on no slide stained {stains}.",
                    stains=", ".join(sorted(unseen)),
                )
            )
        return found

    def _facts(self, entry: SlideEntry, slide: Slide) -> SlideFacts:
        width, height = slide.dimensions
        name = f"{hashed_name(entry.slide_id)}.jpg"
        path = make_folder(self._out / MAPS_FOLDER) / name
        if not path.is_file():
            write_image(slide.thumbnail(MAP_PX), path, jpeg_quality=MAP_QUALITY)
        return SlideFacts(
            slide_id=entry.slide_id,
            file_name=entry.path.name,
            patient_id=entry.patient_id,
            stain=entry.stain or slide.stain or self._stain,
            width=width,
            height=height,
            mpp=slide.mpp,
            bounds_offset=slide.bounds_offset,
            map_path=f"{MAPS_FOLDER}/{name}",
            dicom=dicom_reference(entry.path),
        )

    def _propose(self, entry: SlideEntry, detector: Detector, override: float | None) -> None:
        found = propose(
            entry,
            detector,
            self.proposals_folder,
            structures=self._out / STRUCTURES_FOLDER,
            stain=self._stain,
            mpp_override=override,
            track=self._track,
        )
        slide = current_slide(entry.path, mpp_override=override)
        self._stains.add(str(entry.stain or slide.stain or self._stain))
        self.scores |= {(entry.slide_id, name): score for name, score in found.scores.items()}
        case = self.patients[entry.slide_id] or entry.slide_id
        self._notes += [note.model_copy(update={"case": case}) for note in found.notes]
        if not found.scores:
            self.empty_slides.append(entry.slide_id)
