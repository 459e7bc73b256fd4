"""The gallery of a report: the images the model is most wrong about, as small pictures."""

from pathlib import Path

from glomerulab.errors import ImageFileError
from glomerulab.evaluation.judged import Judged
from glomerulab.evaluation.run_tables import RunTables
from glomerulab.evaluation.worst_errors import worst_errors
from glomerulab.report.data_uri import thumbnail_uri
from glomerulab.report.score_words import percent
from glomerulab.report.write_html import GalleryItem

__all__ = ["gallery", "gallery_note"]


def gallery(run: RunTables, judged: Judged, *, n_most: int = 12) -> tuple[GalleryItem, ...]:
    """Show the worst errors; a picture that cannot be read is replaced by the reason.

    Parameters
    ----------
    run : RunTables
    judged : Judged
    n_most : int, default 12

    Returns
    -------
    tuple of GalleryItem
    """
    items = []
    for error in worst_errors(judged, n_most=n_most):
        uri, reason = _picture(run.image_paths.get(error.image_id))
        items.append(
            GalleryItem(
                image_id=error.image_id,
                true_label=error.true_label,
                called=error.called,
                confidence=percent(error.confidence),
                uri=uri,
                reason=reason,
            )
        )
    return tuple(items)


def gallery_note(judged: Judged) -> str:
    """Say how many errors there are and what order the gallery is in."""
    wrong = (judged.calls != (judged.labels == 1)) & (judged.labels == judged.labels)
    n_wrong = int(wrong.any(axis=1).sum())
    if n_wrong == 0:
        return "There are none: every judged image was called right."
    return (
        f"{n_wrong} of {judged.n_images} images were called wrong. The most convinced wrong "
        "answers come first; the percentage is the probability the model gave to its answer. Look "
        "for a common cause: focus, stain, an edge of the biopsy, two lesions at once, or a label "
        "that deserves a second opinion."
    )


def _picture(path: Path | None) -> tuple[str | None, str]:
    if path is None:
        return None, "The manifest does not say where this image is."
    try:
        return thumbnail_uri(path), ""
    except ImageFileError as error:
        return None, f"{path.name}: {error.message}"
