"""Write what a segmenter outlined on a slide, with what makes it doubtful."""

from collections.abc import Collection
from pathlib import Path

from glomerulab.cases.case_folder import Note
from glomerulab.inference.segmenter import Segmenter
from glomerulab.inference.slide_segmenter import SlideSegmentation
from glomerulab.models.card import MIN_DICE, SegmenterCard
from glomerulab.slides.slide import Slide
from glomerulab.structures.classes import own_structures, structure
from glomerulab.structures.summary import HardlyFound
from glomerulab.structures.write import STRUCTURE_FORMATS, StructureFormat, write_structures

__all__ = ["segmenter_notes", "write_outlined"]


def write_outlined(
    found: SlideSegmentation,
    slide: Slide,
    folder: Path,
    *,
    segmenter: Segmenter,
    run: str,
    formats: Collection[StructureFormat] = STRUCTURE_FORMATS,
    slide_id: str,
    stain: str | None,
) -> tuple[str, ...]:
    """Write the structures of a slide; what the segmenter hardly finds is not assessed.

    Parameters
    ----------
    run : str
        Name of the segmenter's folder.
    formats, slide_id, stain
        As for `write_structures`.

    Returns
    -------
    tuple of str
        What the user must know of this slide, in English. The summary also holds what holds for
        every slide: how well the segmenter finds each structure.
    """
    card = segmenter.card
    notes = [str(one) for one in slide.scale_warnings]
    notes += [note.en for note in (*found.notes, *_stain_notes(stain or slide.stain, card))]
    write_structures(
        found.map,
        slide,
        folder,
        formats=formats,
        slide_id=slide_id,
        stain=stain,
        notes=[*notes, *filter(None, [card.test_summary]), *segmenter_notes(card, run)],
        not_assessed={
            name: HardlyFound(run, dice, MIN_DICE) for name, dice in card.hardly_found.items()
        },
    )
    return tuple(notes)


def _stain_notes(stain: str | None, card: SegmenterCard) -> list[Note]:
    if stain is None or not card.stains_seen or stain in card.stains_seen:
        return []
    return [Note.of("The segmenter was trained on no slide stained {stain}.", stain=stain)]


def segmenter_notes(card: SegmenterCard, run: str) -> list[str]:
    """Return which structures a segmenter hardly finds, or may not find, in English sentences."""
    notes = []
    if hardly := card.hardly_found:
        note = Note.of(
            "The segmenter {segmenter} hardly finds {structures} on images that it never saw, so "
            "they are not assessed; a Dice of at least {least} is needed.",
            segmenter=run,
            structures=", ".join(
                f"{structure(name).name.lower()} (Dice {dice:.2f})" for name, dice in hardly.items()
            ),
            least=f"{MIN_DICE:.2f}",
        )
        notes.append(note.en)
    if unscored := [name for name in card.structures if name not in card.dice]:
        note = Note.of(
            "It is not known how well the segmenter {segmenter} finds {structures}: it was not "
            "scored on images that it never saw and on which they are marked.",
            segmenter=run,
            structures=", ".join(structure(name).name.lower() for name in unscored),
        )
        notes.append(note.en)
    for name, similar in own_structures(card.structures).items():
        if similar:
            note = Note.of(
                "The segmenter {segmenter} calls a structure {structure}, an area whose objects "
                "are not counted; perhaps {similar} is meant.",
                segmenter=run,
                structure=name,
                similar=" or ".join(similar),
            )
            notes.append(note.en)
    return notes
