"""Stain-normalise the images of a cohort to one target per stain, and write a new manifest.

Images are processed one per call, by several processes on request. Each finished image is recorded
in ``normalize.jsonl``, so that a run that was stopped continues. Targets should come from the
training part.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from glomerulab.cohort.leakage import (
    TargetLeak,
    check_target_leaks,
    check_target_stains,
    find_target_leaks,
)
from glomerulab.cohort.manifest import Manifest, write_manifest
from glomerulab.errors import (
    GlomerulabError,
    ImageFileError,
    ManifestError,
    OutputError,
    StainError,
)
from glomerulab.images import RgbImage, read_image, write_image
from glomerulab.pipeline.normalize_records import (
    LOCK_FILE,
    NO_TARGET,
    OTHER_TARGET,
    UNREADABLE,
    Record,
    Records,
    done_before,
    normalized_manifest,
    open_records,
)
from glomerulab.runtime.files import make_folder, size_and_mtime
from glomerulab.runtime.messages import count_noun
from glomerulab.runtime.names import quoted_name
from glomerulab.runtime.parallel import Workers, map_outcomes, part_slice
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import folder_lock
from glomerulab.stain.fitting import FitFailure, StainStatus, try_fit_many
from glomerulab.stain.normalize import LACKS_OWN_STAINS, normalize
from glomerulab.stain.optical_density import White, checked_white
from glomerulab.stain.reference import StainReference, write_reference

__all__ = ["NormalizedCohort", "normalize_manifest"]

Per = Literal["slide", "image"]
Source = StainReference | FitFailure | None
"""Stains of the slide; why they could not be fitted; or None for the image's own stains."""

MAX_CROPS_PER_SLIDE_FIT = 16


@dataclass(frozen=True)
class NormalizedCohort:
    """The manifest of the normalised images, and how many have each status."""

    manifest: Manifest
    path: Path
    n_by_status: Mapping[str, int]
    target_leaks: Mapping[str, TargetLeak]
    """By stain, the targets that come from the test or the validation part."""
    n_before: int = 0
    """How many images were normalised before, as the given manifest records."""

    @property
    def doubts(self) -> list[str]:
        """Sentences on images that were normalised before or look like another stain."""
        table = self.manifest.table
        other = table[(table["stain_status"] == StainStatus.OTHER_STAIN.value).to_numpy(bool)]
        sentences = []
        if self.n_before:
            n_other = self.n_by_status.get(OTHER_TARGET, 0)
            others = (
                f", {n_other} of them in those of another target; to change the target, give the "
                "manifest of the originals"
                if n_other
                else ""
            )
            sentences.append(
                f"{count_noun(self.n_before, 'image was', 'images were')} normalised before, as "
                f"the manifest records, and {'keeps' if self.n_before == 1 else 'keep'} the "
                f"present colours{others}"
            )
        for stain, rows in other.groupby("stain"):
            n_stated = int((table["stain"] == stain).sum())
            sentences.append(
                f"{len(rows)} of {count_noun(n_stated, 'image')} stated as {stain} "
                f"{'looks' if len(rows) == 1 else 'look'} like another stain and "
                f"{'keeps its' if len(rows) == 1 else 'keep their'} colours, such as "
                f"{rows['image_id'].iloc[0]!r} (see the column stain_reason); correct the column "
                "stain, or normalise with --trust-stains if it is right"
            )
        return sentences

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
    workers: Workers | None = None,
    part: tuple[int, int] | None = None,
    track: Track = silent,
) -> NormalizedCohort:
    """Write every image in the colours of its stain's target, and a manifest of the new images.

    Parameters
    ----------
    manifest : Manifest
        Column ``stain`` filled; ``slide_id`` too where `per` is ``"slide"``.
    targets : mapping of str to StainReference
        By stain. A target from the test or the validation part leaks into training: the result and
        the new manifest name it.
    out : Path
        Folder for ``manifest.csv``, ``images/``, ``targets/`` and ``slides/``. Images that are
        already there, made with the same targets, are not made again.
    per : {"slide", "image"}, default "slide"
        Fit the stains once per slide, or for every image as the paper does.
    white : tuple of 3 float, optional
        Grey level of unstained glass in red, green and blue, in (0, 255]; by default estimated from
        the slide's crops, or from the image where `per` is ``"image"``.
    keep_others : bool, default False
        Leave images of stains without a target as they are instead of raising.
    strict : bool, default False
        Raise if a target comes from the test or the validation part, or if an image cannot be
        normalised.
    n_workers : int, default 1
        Processes.
    workers : Workers, optional
        Of a cluster, which sees the same paths; in place of `n_workers` processes.
    part : tuple of int, optional
        Number of a part and how many there are: write the images of its slides and no manifest.
        When all parts are done, a call without it writes the manifest.

    Returns
    -------
    NormalizedCohort
        Of the images of the part. Its table has the columns of `manifest` and ``stain_status``,
        ``stain_reason``, ``stain_target``, ``stain_target_leak``, ``normalized_from``.

    Raises
    ------
    ManifestError
        If stains or slides are missing.
    LeakageError
        If `strict` and a target comes from the test or the validation part; nothing is written.
    StainError
        If `strict` and an image cannot be normalised; the others are written.
    OutputError
        If `out` holds another run, or the images themselves.

    Notes
    -----
    With ``per="image"``, an image with one stain only, or with tissue that is not stained as
    expected, takes the stains of its slide where it has one (status ``slide_stains``).
    """
    if per not in get_args(Per):
        raise ValueError(f"per must be slide or image, got {per!r}")
    if white is not None:
        checked_white(white)
    _check_rows(manifest, targets, per=per, keep_others=keep_others)
    _check_out(manifest, out)
    check_target_stains(manifest, targets)
    leaks = find_target_leaks(manifest, targets)
    if strict:
        check_target_leaks(manifest, leaks)
    out = out if workers is None else out.absolute()  # their working folder is another
    with folder_lock(out, LOCK_FILE if part is None else f"{LOCK_FILE}-{part[0]}-{part[1]}"):
        records = open_records(out, targets, per=per, white=white, part=part)
        before = done_before(manifest, targets)
        tasks = [one for one in _tasks(manifest, targets, out, white) if one.image_id not in before]
        mine = _of_part(tasks, part or (1, 1))
        run = _Run(out, records, partial(map_outcomes, n_workers=n_workers, workers=workers), track)
        if per == "slide":
            run.per_slide(mine, tasks)
        else:
            run.per_image(mine, tasks)
        files = {task.image_id: task.out for task in mine}
        if part is not None:
            manifest = manifest.with_table(
                manifest.table[manifest.table["image_id"].isin(files.keys())]
            )
        new = normalized_manifest(
            manifest, files, records.by_image, out=out, leaks=leaks, before=before
        )
        if part is None:
            write_manifest(new, out / "manifest.csv")
            records.finish(list(files))
    counts = Counter(new.table["stain_status"])
    result = NormalizedCohort(new, out / "manifest.csv", counts, leaks, len(before))
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
    is_second_try: bool = False
    """With the stains of the slide, since the image's own could not be separated."""


@dataclass(frozen=True)
class _SlideTask:
    slide: str
    target: StainReference
    white: White | None
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class _Run:
    """One call of `normalize_manifest`."""

    out: Path
    records: Records
    map: Callable[..., Any]
    """`map_outcomes` on the processes that were asked for."""
    track: Track

    def per_slide(self, tasks: Sequence[_Task], cohort: Sequence[_Task]) -> None:
        """Normalise what is left with the stains of each image's slide."""
        waiting = self.waiting(tasks)
        fitted = self.fit_slides(waiting, cohort)
        known = []
        for task in waiting:
            source = fitted[task.slide, task.target.stain]
            if isinstance(source, GlomerulabError):
                self.note(task, UNREADABLE, f"the slide as a whole: {source}")
            else:
                known.append(replace(task, source=source))
        self.normalize(known, "Normalising")

    def per_image(self, tasks: Sequence[_Task], cohort: Sequence[_Task]) -> None:
        """Normalise what is left with each image's stains, or its slide's where it has none."""
        self.normalize(self.waiting(tasks), "Normalising")
        lacking = [task for task in tasks if task.slide and self.lacks_two_stains(task)]
        fitted = self.fit_slides(lacking, cohort)
        again = [
            replace(task, source=source, is_second_try=True)
            for task in lacking
            if isinstance(source := fitted[task.slide, task.target.stain], StainReference)
        ]
        self.normalize(again, "Using the stains of the slides")

    def waiting(self, tasks: Sequence[_Task]) -> list[_Task]:
        """Return the images that no earlier run finished, or whose file changed since."""
        is_done = self.records.is_done
        return [task for task in tasks if not is_done(task.image_id, task.path, task.out)]

    def normalize(self, tasks: Sequence[_Task], description: str) -> None:
        """Write the images and a record of each."""
        if not tasks:
            return
        with closing(self.map(_normalize_one, tasks)) as outcomes:
            for outcome in self.track(outcomes, description, len(tasks)):
                self.note(outcome.item, *(outcome.value or (UNREADABLE, str(outcome.error))))

    def note(self, task: _Task, status: str, reason: str) -> None:
        """Record what became of an image."""
        self.records.add(Record(task.image_id, status, reason, *size_and_mtime(task.path)))

    def lacks_two_stains(self, task: _Task) -> bool:
        """Whether an image was left as it is because two stains could not be separated."""
        record = self.records.by_image.get(task.image_id)
        return record is not None and record.status in LACKS_OWN_STAINS

    def fit_slides(
        self, needed: Sequence[_Task], cohort: Sequence[_Task]
    ) -> dict[tuple[str, str], Source | GlomerulabError]:
        """Fit the slides of the needed images, each on an even sample of all its crops.

        A slide whose fit ended its worker each time has the error.
        """
        wanted = {(task.slide, task.target.stain) for task in needed}
        crops: dict[tuple[str, str], list[_Task]] = {key: [] for key in sorted(wanted)}
        for task in cohort:
            if (task.slide, task.target.stain) in crops:
                crops[task.slide, task.target.stain].append(task)
        slides = [_slide_task(slide, members) for (slide, _), members in crops.items()]
        fitted: dict[tuple[str, str], Source | GlomerulabError] = {}
        if not slides:
            return fitted
        with closing(self.map(_fit_slide, slides)) as outcomes:
            for outcome in self.track(outcomes, "Fitting the stains of each slide", len(slides)):
                slide, stain = key = outcome.item.slide, outcome.item.target.stain
                fitted[key] = outcome.error or outcome.value
                if isinstance(outcome.value, StainReference):
                    name = f"{quoted_name(slide)}.{stain}.json"
                    write_reference(outcome.value, make_folder(self.out / "slides") / name)
        return fitted


def _tasks(
    manifest: Manifest, targets: Mapping[str, StainReference], out: Path, white: White | None
) -> list[_Task]:
    for stain, target in targets.items():
        write_reference(target, make_folder(out / "targets") / f"{stain}.json")
    images = make_folder(out / "images")
    table = manifest.table
    slides = table["slide_id"].fillna("")
    return [
        _Task(image_id, path, images / f"{quoted_name(image_id)}.png", slide, targets[stain], white)
        for image_id, path, slide, stain in zip(
            table["image_id"], manifest.image_paths(), slides, _stains(manifest), strict=True
        )
        if stain in targets
    ]


def _of_part(tasks: Sequence[_Task], part: tuple[int, int]) -> list[_Task]:
    """Return the images of a part of the slides, which are fitted once."""
    slides: dict[tuple[str, str], list[_Task]] = {}
    for task in tasks:
        slides.setdefault((task.slide, "" if task.slide else task.image_id), []).append(task)
    groups = list(slides.values())[part_slice(part, len(slides))]
    return [task for group in groups for task in group]


def _normalize_one(task: _Task) -> tuple[str, str]:
    """Write one image; return its status and the reason."""
    image = read_image(task.path)
    if isinstance(task.source, FitFailure):
        write_image(image, task.out)
        return task.source.status.value, f"the slide as a whole: {task.source.reason}"
    result = normalize(image, task.target, source=task.source, white=task.white)
    write_image(result.image, task.out)
    if task.is_second_try and result.is_changed:
        return StainStatus.SLIDE_STAINS.value, "its own stains could not be separated"
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
        images,
        target.stain,
        parameters=target.parameters,
        white=task.white,
        source=task.slide,
        check_stain=not target.trusts_stain,
    )


def _readable(paths: Sequence[Path]) -> Iterator[RgbImage]:
    for path in paths:
        try:
            image = read_image(path)
        except ImageFileError:  # recorded when the image itself is normalised
            continue
        yield image


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
            listed = ", ".join(
                f"{stain} ({count_noun(n, 'image')})" for stain, n in sorted(others.items())
            )
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
                f"line {without[0] + 2} has no slide_id "
                f"({count_noun(len(without), 'line')} in all); fill the column, "
                "or fit every image by itself with --per image",
                where=manifest.location,
            )


def _check_out(manifest: Manifest, out: Path) -> None:
    if out.resolve() == manifest.folder.resolve():
        raise OutputError(
            "the output folder is the folder of the manifest; choose another", where=str(out)
        )
    images = (out / "images").resolve()
    if any(path.resolve().parent == images for path in manifest.image_paths()):
        raise OutputError(
            "the output folder holds the images of the manifest; choose another", where=str(out)
        )


def _raise_for_unchanged(result: NormalizedCohort) -> None:
    table = result.manifest.table
    changed = {StainStatus.NORMALIZED.value, StainStatus.SLIDE_STAINS.value, NO_TARGET}
    bad = table[~table["stain_status"].isin(changed)]
    if len(bad):
        first = bad.iloc[0]
        raise StainError(
            f"{first['image_id']}: {first['stain_status']}: {first['stain_reason']} "
            f"({count_noun(len(bad), 'image')} could not be normalised; see the column "
            "stain_status)",
            where=str(result.path),
        )


def _stains(manifest: Manifest) -> list[str]:
    return [str(stain) for stain in manifest.table["stain"].fillna("")]
