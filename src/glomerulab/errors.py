"""Errors from files, slides, disks and data, as one tree.

::

    GlomerulabError
    ├── SlideError            a slide cannot be opened, read or rewritten
    │   └── MissingMppError   the micrometres per pixel of a slide are unknown
    ├── RegionError           a region file is malformed, or of another slide
    ├── ImageFileError        an image file is unreadable, truncated, or too large
    ├── ManifestError         a manifest, or a row of it, breaks a rule
    │   └── LeakageError      one patient, or one picture, is in two parts of a split
    ├── TaxonomyError         a taxonomy file breaks a rule, or a label is unknown
    ├── ConfigError           a configuration has an unknown key or an invalid value
    ├── StainError            an image cannot be separated into its stains
    ├── CheckpointError       weights are missing, altered, or of another model
    ├── TrainingError         training cannot start or continue
    ├── RunError              a file of a run folder is missing or changed
    ├── PredictionsError      a predictions table breaks a rule
    ├── AnnotationError       a request to a labelling study cannot be fulfilled
    │   ├── NotAllowedError   the account lacks the permission
    │   ├── UnknownRecordError no such account, image, item or region
    │   ├── SaveConflictError changed by someone since it was read (`annotation.records`)
    │   └── StoreError        the database cannot be opened, read or written
    │       └── StoreBusyError another program uses the database: try again
    ├── StorageError          an object of a remote storage cannot be read or written
    └── OutputError           an output exists, is read-only, or the disk is full

A caller's mistake (a wrong shape, a value out of range) is a ``ValueError`` or ``TypeError``
instead. The command line catches `GlomerulabError` in one place (`glomerulab.cli.main`) and prints
``where: message`` in one line.

A message is complete without `where`, since servers return it alone: a path of the server is not
for its clients. It has its own subject, and names the thing, what is wrong, and the way out, for
example "the folder holds no trained model; give the folder that `glomerulab train` wrote". It
starts in lower case and ends without a full stop, unless it is several sentences.
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
    "StorageError",
    "StoreBusyError",
    "StoreError",
    "TaxonomyError",
    "TrainingError",
    "UnknownRecordError",
]


MAX_LENGTH = 2000
"""Characters of a message; damaged files hold cells of a megabyte."""


class GlomerulabError(Exception):
    """Base of all errors from files, slides, disks or data.

    Parameters
    ----------
    message : str
        What is wrong and the way out; complete without `where`.
    where : str, optional
        File, row or item, as the user knows it.
    """

    def __init__(self, message: str, *, where: str | None = None) -> None:
        message = _one_line(message)
        super().__init__(message, where)
        self.message = message
        self.where = where

    def __str__(self) -> str:
        """Return ``where: message``."""
        return self.message if self.where is None else f"{_shortened(self.where)}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild with the keyword, so that the error crosses a process boundary."""
        return _rebuild, (type(self), self.message, self.where)


def _one_line(message: str) -> str:
    """Return a message in one line, without the middle of a cell or library text of any length."""
    return _shortened(message if message.isprintable() else " ".join(message.split()))


def _shortened(line: str) -> str:
    if len(line) <= MAX_LENGTH:
        return line
    return f"{line[: MAX_LENGTH * 3 // 4]} … {line[-MAX_LENGTH // 4 :]}"


def _rebuild(kind: type[GlomerulabError], message: str, where: str | None) -> GlomerulabError:
    return kind(message, where=where)


class SlideError(GlomerulabError):
    """A slide cannot be opened, read or rewritten."""


class MissingMppError(SlideError):
    """The micrometres per pixel of a slide are unknown: neither stated nor given."""


class RegionError(GlomerulabError):
    """A region file is malformed, or belongs to another slide."""


class ImageFileError(GlomerulabError):
    """An image file is unreadable, truncated, or too large."""


class ManifestError(GlomerulabError):
    """A manifest, or a row of it, breaks a rule."""


class LeakageError(ManifestError):
    """One patient, or one picture, is in two parts of a split."""


class TaxonomyError(GlomerulabError):
    """A taxonomy file breaks a rule, or a label is not in it."""


class ConfigError(GlomerulabError):
    """A configuration has an unknown key or an invalid value."""


class StainError(GlomerulabError):
    """An image cannot be separated into its stains."""


class CheckpointError(GlomerulabError):
    """Weights are missing, altered, or of another model."""


class TrainingError(GlomerulabError):
    """Training cannot start or continue."""


class RunError(GlomerulabError):
    """A file of a run folder is missing, or changed since the run was trained."""


class PredictionsError(GlomerulabError):
    """A predictions table breaks a rule."""


class AnnotationError(GlomerulabError):
    """A request to a labelling study cannot be fulfilled."""


class NotAllowedError(AnnotationError):
    """The account lacks the permission."""


class UnknownRecordError(AnnotationError):
    """There is no such account, image, item or region in the study."""


class StoreError(AnnotationError):
    """The database of a study cannot be opened, read or written."""


class StoreBusyError(StoreError):
    """Another program uses the database; the same call may work later."""


class OutputError(GlomerulabError):
    """An output exists, is read-only, or the disk is full."""


class StorageError(GlomerulabError):
    """Object storage cannot be read or written, or the local cache is too small for it."""
