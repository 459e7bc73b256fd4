"""Everything that can go wrong in the world outside the program, as one tree.

::

    GlomerulabError
    ├── SlideError            a slide cannot be opened, read or rewritten
    │   └── MissingMppError   the slide does not say its micrometres per pixel
    ├── RegionError           a region file is malformed, or of another slide
    ├── ImageFileError        an image file is unreadable, truncated, or too large to trust
    ├── ManifestError         a manifest, or a row of it, breaks the rules
    │   └── LeakageError      one patient, or one picture, stands in two parts of a split
    ├── TaxonomyError         a taxonomy file breaks the rules, or a label is unknown
    ├── ConfigError           a configuration has an unknown key or an impossible value
    ├── StainError            an image cannot be separated into its stains
    ├── CheckpointError       weights are missing, altered, or of another model
    ├── TrainingError         training cannot start or go on
    ├── RunError              a file of a run folder is missing, or was changed since
    ├── PredictionsError      a predictions table breaks the rules
    ├── AnnotationError       what was asked of a labelling study cannot be done
    │   ├── NotAllowedError   the account may not do or see this
    │   ├── UnknownRecordError no such account, image, item or region
    │   ├── SaveConflictError changed by someone since it was read (`annotation.records`)
    │   └── StoreError        the database cannot be opened, read or written
    │       └── StoreBusyError another program holds it: try again
    └── OutputError           the place to write to is taken, read-only or full

A caller's mistake (a wrong shape, a value out of range) is a ``ValueError`` or ``TypeError``
instead. The command line catches `GlomerulabError` once and prints it in one line.
"""

__all__ = [
    "AnnotationError",
    "CheckpointError",
    "ConfigError",
    "GlomerulabError",
    "ImageFileError",
    "LeakageError",
    "ManifestError",
    "MissingMppError",
    "NotAllowedError",
    "OutputError",
    "PredictionsError",
    "RegionError",
    "RunError",
    "SlideError",
    "StainError",
    "StoreBusyError",
    "StoreError",
    "TaxonomyError",
    "TrainingError",
    "UnknownRecordError",
]


class GlomerulabError(Exception):
    """Base of every error that comes from files, slides, disks or data.

    Parameters
    ----------
    message : str
        What is wrong and the way out, without the place.
    where : str, optional
        The file, row or item it is about, as the user knows it.
    """

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(message, where)
        self.message = message
        self.where = where

    def __str__(self) -> str:
        """Place and message in one line."""
        return self.message if self.where is None else f"{self.where}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild with the keyword, so that the error crosses a process boundary."""
        return _rebuild, (type(self), self.message, self.where)


def _rebuild(kind: type[GlomerulabError], message: str, where: str | None) -> GlomerulabError:
    return kind(message, where=where)


class SlideError(GlomerulabError):
    """A slide cannot be opened, read or rewritten."""


class MissingMppError(SlideError):
    """A slide does not say its micrometres per pixel, and nobody gave them."""


class RegionError(GlomerulabError):
    """A region file is malformed, or belongs to another slide."""


class ImageFileError(GlomerulabError):
    """An image file is unreadable, truncated, or too large to trust."""


class ManifestError(GlomerulabError):
    """A manifest, or a row of it, breaks the rules."""


class LeakageError(ManifestError):
    """One patient, or one picture, stands in two parts of a split."""


class TaxonomyError(GlomerulabError):
    """A taxonomy file breaks the rules, or a label is not in it."""


class ConfigError(GlomerulabError):
    """A configuration has an unknown key or an impossible value."""


class StainError(GlomerulabError):
    """An image cannot be separated into its stains."""


class CheckpointError(GlomerulabError):
    """Weights are missing, altered, or of another model."""


class TrainingError(GlomerulabError):
    """Training cannot start or go on."""


class RunError(GlomerulabError):
    """A file of a run folder is missing, or was changed since the run was trained."""


class PredictionsError(GlomerulabError):
    """A predictions table breaks the rules."""


class AnnotationError(GlomerulabError):
    """What was asked of a labelling study cannot be done."""


class NotAllowedError(AnnotationError):
    """The account may not do or see this."""


class UnknownRecordError(AnnotationError):
    """There is no such account, image, item or region in the study."""


class StoreError(AnnotationError):
    """The database of a study cannot be opened, read or written."""


class StoreBusyError(StoreError):
    """Another program holds the database; the same call may work later."""


class OutputError(GlomerulabError):
    """The place to write to is taken, read-only or full."""
