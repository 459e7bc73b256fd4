"""Stain normalisation of a whole cohort: every image to its stain's target, in a new manifest.

Images are worked on by processes, one image per call; what is finished is noted line by line, so
that a run that was stopped continues. The target must come from the training part.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from glomerulab.cohort.leakage import TargetLeak, check_target_leaks, find_target_leaks
from glomerulab.cohort.manifest import Manifest, write_manifest
from glomerulab.errors import ImageFileError, ManifestError, OutputError, StainError
from glomerulab.images import RgbImage, read_image, write_image
from glomerulab.pipeline.normalize_progress import Progress, Record, open_progress
from glomerulab.pipeline.normalized_manifest import NO_TARGET, UNREADABLE, normalized_manifest
from glomerulab.runtime.files import make_folder, remove_partial_files, size_and_mtime
from glomerulab.runtime.names import quoted_name
from glomerulab.runtime.parallel import map_outcomes
from glomerulab.runtime.progress import Track, silent
from glomerulab.stain.fitting import Refusal, StainStatus, try_fit_many
from glomerulab.stain.normalize import normalize
from glomerulab.stain.optical_density import White, checked_white
from glomerulab.stain.reference import StainReference, write_reference

__all__ = ["NormalizedCohort", "Per", "normalize_manifest"]

Per = Literal["slide", "image"]

MAX_CROPS_PER_SLIDE_FIT = 16
LACKS_TWO_STAINS = {StainStatus.ONE_STAIN.value, StainStatus.NOT_TISSUE.value}

Source = StainReference | Refusal | None
"""Stains of the slide, why it has none, or None: the image's own."""


@dataclass(frozen=True)
class NormalizedCohort:
    """The new manifest and how many images ended in which status."""

    manifest: Manifest
    path: Path
    n_by_status: Mapping[str, int]
    target_leaks: Mapping[str, TargetLeak]
    """By stain, the targets that come from the test or the validation part."""

    @property
    def n_unreadable(self) -> int:
        """How many images could not be read."""
        return self.n_by_status.get(UNREADABLE, 0)


def normalize_manifest(
    manifest: Manifest,
    targets: Mapping[str, StainReference],
    out: Path,
    *,
    per: Per = "slide",
    white: tuple[float, float, float] | None = None,
    keep_others: bool = False,
    strict: bool = False,
    n_workers: int = 1,
    track: Track = silent,
) -> NormalizedCohort:
    """Write every image in the colours of its stain's target, and a manifest of the new images.

    Parameters
    ----------
    manifest : Manifest
        Column ``stain`` filled; ``slide_id`` too where `per` is ``"slide"``.
    targets : mapping of str to StainReference
        By stain. They must come from the training part, or the test part leaks into training:
        one that does not is told in the result and in the new manifest.
    out : Path
        Folder of the result: ``manifest.csv``, ``images/``, ``targets/``, ``slides/``. Work that
        is already there, with the same targets, is not done again.
    per : {"slide", "image"}, default "slide"
        Fit the stains once per slide, or for every image as the paper does.
    white : tuple of 3 float, optional
        Grey level of unstained glass in red, green and blue, for every image; by default it is
        estimated from the slide's crops, or from the image where `per` is ``"image"``.
    keep_others : bool, default False
        Leave images of stains without a target as they are instead of refusing.
    strict : bool, default False
        Raise where an image cannot be normalised, and before all else where a target comes from
        the test or the validation part.
    n_workers : int, default 1
        Processes.
    track : Track, default silent
        Shows the progress.

    Returns
    -------
    NormalizedCohort
        Its table has the columns of `manifest` and ``stain_status``, ``stain_reason``,
        ``stain_target``, ``stain_target_leak``, ``normalized_from``.

    Raises
    ------
    ManifestError
        If stains or slides are missing.
    LeakageError
        If `strict` and a target comes from the test or the validation part.
    StainError
        If `strict` and an image cannot be normalised; the others are done nevertheless.
    OutputError
        If `out` holds another run, or the images themselves.
    ValueError
        If `per` is neither, or `white` is not in (0, 255].

    Notes
    -----
    With ``per="image"`` an image that shows only one stain, or none it should, takes the stains
    of its slide where it has one (status ``slide_stains``).
    """
    if per not in get_args(Per):
        raise ValueError(f"per must be slide or image, got {per!r}")
    if white is not None:
        checked_white(white)
    _check_rows(manifest, targets, per=per, keep_others=keep_others)
    _check_out(manifest, out)
    leaks = find_target_leaks(manifest, targets)
    if strict:
        check_target_leaks(manifest, leaks)
    remove_partial_files(make_folder(out))
    progress = open_progress(out, targets, per=per, white=white)
    tasks = _tasks(manifest, targets, out, white)
    run = _Run(out, progress, n_workers, track)
    if per == "slide":
        run.per_slide(tasks)
    else:
        run.per_image(tasks)
    result = _finish(manifest, tasks, progress, out, leaks)
    if strict:
        _raise_for_unchanged(result)
    return result


@dataclass(frozen=True)
class _Task:
    """One image to be normalised; small enough to be sent to another process."""

    image_id: str
    path: Path
    out: Path
    slide: str
    """Empty where the slide is not known."""
    target: StainReference
    white: White | None
    source: Source = None
    helps_out: bool = False


@dataclass(frozen=True)
class _SlideTask:
    slide: str
    target: StainReference
    white: White | None
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class _Run:
    """Where a run writes to, and how it works."""

    out: Path
    progress: Progress
    n_workers: int
    track: Track

    def per_slide(self, tasks: Sequence[_Task]) -> None:
        """Do what is left to be done with the stains of each image's slide."""
        waiting = self.waiting(tasks)
        fitted = self.fit_slides(waiting, tasks)
        known = [replace(task, source=fitted[task.slide, task.target.stain]) for task in waiting]
        self.normalize(known, "Normalising")

    def per_image(self, tasks: Sequence[_Task]) -> None:
        """Do what is left with the stains of each image, or of its slide where it has none."""
        self.normalize(self.waiting(tasks), "Normalising")
        lacking = [task for task in tasks if task.slide and self.lacks_two_stains(task)]
        fitted = self.fit_slides(lacking, tasks)
        helped = [
            replace(task, source=fitted[task.slide, task.target.stain], helps_out=True)
            for task in lacking
        ]
        self.normalize(
            [task for task in helped if isinstance(task.source, StainReference)],
            "Using the stains of the slides",
        )

    def waiting(self, tasks: Sequence[_Task]) -> list[_Task]:
        """Return the images that an earlier run did not do, or whose file changed since."""
        is_done = self.progress.is_done
        return [task for task in tasks if not is_done(task.image_id, task.path, task.out)]

    def normalize(self, tasks: Sequence[_Task], description: str) -> None:
        """Write the images and note what became of each."""
        if not tasks:
            return
        with closing(map_outcomes(_normalize_one, tasks, n_workers=self.n_workers)) as outcomes:
            for outcome in self.track(outcomes, description, len(tasks)):
                if isinstance(outcome.error, OutputError):
                    raise outcome.error  # a full or read-only disk is no fault of this image
                size, modified = size_and_mtime(outcome.item.path)
                status, reason = outcome.value or (UNREADABLE, str(outcome.error))
                self.progress.add(Record(outcome.item.image_id, status, reason, size, modified))

    def lacks_two_stains(self, task: _Task) -> bool:
        """Say whether an image was left as it is for want of two stains of its own."""
        record = self.progress.records.get(task.image_id)
        return record is not None and record.status in LACKS_TWO_STAINS

    def fit_slides(
        self, needed: Sequence[_Task], tasks: Sequence[_Task]
    ) -> dict[tuple[str, str], Source]:
        """Fit the slides of the needed images, each on an even sample of all its crops."""
        wanted = {(task.slide, task.target.stain) for task in needed}
        crops: dict[tuple[str, str], list[_Task]] = {key: [] for key in sorted(wanted)}
        for task in tasks:
            if (task.slide, task.target.stain) in crops:
                crops[task.slide, task.target.stain].append(task)
        slides = [_slide_task(slide, members) for (slide, _), members in crops.items()]
        fitted: dict[tuple[str, str], Source] = {}
        if not slides:
            return fitted
        with closing(map_outcomes(_fit_slide, slides, n_workers=self.n_workers)) as outcomes:
            for outcome in self.track(outcomes, "Fitting the stains of each slide", len(slides)):
                if outcome.value is None:
                    raise outcome.error or AssertionError
                key = outcome.item.slide, outcome.item.target.stain
                fitted[key] = outcome.value
                if isinstance(outcome.value, StainReference):
                    name = f"{quoted_name(key[0])}.{key[1]}.json"
                    write_reference(outcome.value, make_folder(self.out / "slides") / name)
        return fitted


def _normalize_one(task: _Task) -> tuple[str, str]:
    """Write one image; return its status and the reason."""
    image = read_image(task.path)
    if isinstance(task.source, Refusal):
        write_image(image, task.out)
        return task.source.status.value, f"the slide as a whole: {task.source.reason}"
    result = normalize(image, task.target, source=task.source, white=task.white)
    write_image(result.image, task.out)
    if task.helps_out and result.is_changed:
        return StainStatus.SLIDE_STAINS.value, "its own stains could not be told apart"
    return result.status.value, result.reason


def _slide_task(slide: str, members: Sequence[_Task]) -> _SlideTask:
    step = -(-len(members) // MAX_CROPS_PER_SLIDE_FIT)
    paths = tuple(task.path for task in members[::step])
    return _SlideTask(slide, members[0].target, members[0].white, paths)


def _fit_slide(task: _SlideTask) -> Source:
    """Fit one slide on those of its crops that can be read."""
    target = task.target
    images = _readable(task.paths)
    return try_fit_many(
        images, target.stain, parameters=target.parameters, white=task.white, source=task.slide
    )


def _readable(paths: Sequence[Path]) -> Iterator[RgbImage]:
    for path in paths:
        try:
            image = read_image(path)
        except ImageFileError:  # reported with its own row when its turn comes
            continue
        yield image


def _tasks(
    manifest: Manifest, targets: Mapping[str, StainReference], out: Path, white: White | None
) -> list[_Task]:
    for stain, target in targets.items():
        write_reference(target, make_folder(out / "targets") / f"{stain}.json")
    images = make_folder(out / "images")
    table = manifest.table
    slides = table["slide_id"].fillna("")
    return [
        _Task(
            image_id,
            path,
            images / f"{quoted_name(image_id)}.png",
            slide,
            targets[stain],
            white,
        )
        for image_id, path, slide, stain in zip(
            table["image_id"], manifest.image_paths(), slides, _stains(manifest), strict=True
        )
        if stain in targets
    ]


def _finish(
    manifest: Manifest,
    tasks: Sequence[_Task],
    progress: Progress,
    out: Path,
    leaks: Mapping[str, TargetLeak],
) -> NormalizedCohort:
    """Write the manifest of the new images."""
    files = {task.image_id: task.out for task in tasks}
    new = normalized_manifest(manifest, files, progress.records, out=out, leaks=leaks)
    path = out / "manifest.csv"
    write_manifest(new, path)
    return NormalizedCohort(new, path, Counter(new.table["stain_status"]), leaks)


def _check_rows(
    manifest: Manifest, targets: Mapping[str, StainReference], *, per: Per, keep_others: bool
) -> None:
    for stain, target in targets.items():
        if target.stain != stain:
            raise ManifestError(f"the target given for {stain} is of stain {target.stain}")
    stains = _stains(manifest)
    if not keep_others:
        others = Counter(stain or "empty" for stain in stains if stain not in targets)
        if others:
            listed = ", ".join(f"{stain} ({n} images)" for stain, n in sorted(others.items()))
            raise ManifestError(
                f"no target for stain {listed}; give one with --target STAIN=FILE, or leave these "
                "images as they are with --keep-others",
                where=manifest.location,
            )
    if per == "slide":
        empty = manifest.table["slide_id"].isna().to_numpy()
        without = [n for n, stain in enumerate(stains) if stain in targets and empty[n]]
        if without:
            raise ManifestError(
                f"row {without[0] + 2}: no slide_id ({len(without)} rows in all); fill the column, "
                "or fit every image by itself with --per image",
                where=manifest.location,
            )


def _check_out(manifest: Manifest, out: Path) -> None:
    if out.resolve() == manifest.folder.resolve():
        raise OutputError("is the folder of the manifest itself; choose another", where=str(out))
    images = (out / "images").resolve()
    if any(path.resolve().parent == images for path in manifest.image_paths()):
        raise OutputError("holds the images of the manifest; choose another", where=str(out))


def _raise_for_unchanged(result: NormalizedCohort) -> None:
    table = result.manifest.table
    changed = {StainStatus.NORMALIZED.value, StainStatus.SLIDE_STAINS.value, NO_TARGET}
    bad = table[~table["stain_status"].isin(changed)]
    if len(bad):
        first = bad.iloc[0]
        raise StainError(
            f"{first['image_id']}: {first['stain_status']}: {first['stain_reason']} "
            f"({len(bad)} such images in all; see the column stain_status)",
            where=str(result.path),
        )


def _stains(manifest: Manifest) -> list[str]:
    return [str(stain) for stain in manifest.table["stain"].fillna("")]
