"""The gallery of a report: the images the model is most wrong about, as small pictures."""

from pathlib import Path

from glomerulab.errors import ImageFileError
from glomerulab.evaluation.error_analysis import worst_errors
from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.run_tables import RunTables
from glomerulab.reports.html import THUMBNAIL_PX, thumbnail_uri
from glomerulab.reports.run.html import GalleryItem
from glomerulab.reports.run.pictures import NO_PICTURES, Pictures
from glomerulab.reports.run.score_words import percent

__all__ = ["gallery", "gallery_note"]

EXPLAINED = (
    " Beside each image, in grey, is where the model looked (occlusion): the brighter, the more it "
    "spoke for the answer, or, where a label was missed, for that label. It says where, not why; "
    "`glomerulab explain` tests whether such maps can be believed."
)


def gallery(
    run: RunTables, eval_set: EvalSet, *, n_most: int = 12, pictures: Pictures = NO_PICTURES
) -> tuple[GalleryItem, ...]:
    """Show the worst errors; a picture that cannot be read is replaced by the reason.

    Parameters
    ----------
    run : RunTables
    judged : Judged
    n_most : int, default 12
    pictures : Pictures, default NO_PICTURES
        Draws why the model erred, where it can.

    Returns
    -------
    tuple of GalleryItem
    """
    items = []
    names = {label.id: label.name for label in eval_set.taxonomy.labels}
    for error in worst_errors(eval_set, n_most=n_most):
        drawn = None if pictures.explain is None else pictures.explain(error)
        size_px = THUMBNAIL_PX if drawn is None else 2 * THUMBNAIL_PX
        uri, reason = _picture(drawn or run.image_paths.get(error.image_id), size_px)
        items.append(
            GalleryItem(
                image_id=error.image_id,
                true_label=error.true_label,
                called=error.called,
                confidence=percent(error.confidence),
                uri=uri,
                reason=reason,
                explained="" if drawn is None else names[error.label_id],
            )
        )
    return tuple(items)


def gallery_note(eval_set: EvalSet, *, pictures: Pictures = NO_PICTURES) -> str:
    """Say how many errors there are and what order the gallery is in."""
    wrong = (eval_set.calls != (eval_set.labels == 1)) & (eval_set.labels == eval_set.labels)
    n_wrong = int(wrong.any(axis=1).sum())
    if n_wrong == 0:
        return "There are none: every judged image was called right."
    return (
        f"{n_wrong} of {eval_set.n_images} images were called wrong. The most convinced wrong "
        "answers come first; the percentage is the probability the model gave to its answer. Look "
        "for a common cause: focus, stain, an edge of the biopsy, two lesions at once, or a label "
        "that deserves a second opinion." + (EXPLAINED if pictures.explain is not None else "")
    )


def _picture(path: Path | None, size_px: int) -> tuple[str | None, str]:
    if path is None:
        return None, "The manifest does not say where this image is."
    try:
        return thumbnail_uri(path, size_px=size_px), ""
    except ImageFileError as error:
        return None, f"{path.name}: {error.message}"
