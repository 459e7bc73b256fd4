"""Apply a model to a cohort, case by case: on this machine, on a cluster, or in parts.

Serial sections of a patient count together, so a case is a patient; where the patient is unknown it
is a slide, or the image. Every case is what `predict` makes of it alone.
"""

import datetime as dt
import gc
import hashlib
import os
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import read_case_folder
from glomerulab.errors import GlomerulabError, OutputError
from glomerulab.inference.detector import open_detector
from glomerulab.inference.model import TrainedModel, load_model, read_identity
from glomerulab.pipeline.cohort_folder import (
    CaseCounts,
    CohortFolder,
    seconds_since,
    too_often,
)
from glomerulab.pipeline.crop_plan import check_regions
from glomerulab.pipeline.predict import check_options, predict_source
from glomerulab.pipeline.predict_inputs import PredictSettings, Source, read_source
from glomerulab.runtime.files import StrPath, disk_error, make_folder, remove_partial_files
from glomerulab.runtime.kept import kept
from glomerulab.runtime.names import distinct_names
from glomerulab.runtime.parallel import N_ATTEMPTS, Workers, map_outcomes, part_slice
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.sealing import SealedFolder, open_model_folder
from glomerulab.runtime.storage import cache_folder, local_copy, staged, url_of

__all__ = ["CohortSummary", "predict_cohort"]

CREATED = "SOURCE_DATE_EPOCH"
"""Environment variable with the time, in seconds since 1970, that files state as theirs."""


@dataclass(frozen=True, slots=True)
class CohortSummary:
    """What a run did."""

    folder: Path
    n_cases: int
    """Of the part that was asked for."""
    n_before: int
    """Cases that earlier runs had ended."""
    n_done: int
    failed: tuple[str, ...]
    """Cases that failed in this run."""
    n_elsewhere: int
    """Cases that another process works on."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A case as it is sent to a worker."""

    case: str
    name: str
    source: Source


@dataclass(frozen=True, slots=True)
class _Cases(Sequence[_Case]):
    """Cases that are made one by one, as they are sent to workers."""

    source: Source
    table: pd.DataFrame
    """``case`` and ``name``; the index is the number of the case."""
    rows: Sequence[NDArray[np.intp]]
    """Of every case of the source."""

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> _Case: ...

    @overload
    def __getitem__(self, index: slice) -> "_Cases": ...

    def __getitem__(self, index: int | slice) -> "_Case | _Cases":
        if isinstance(index, slice):
            return replace(self, table=self.table[index])
        number = self.table.index[index]
        case, name = self.table.at[number, "case"], self.table.at[number, "name"]
        return _Case(str(case), str(name), self.source.take(self.rows[number]))


@dataclass(frozen=True, slots=True)
class _Job:
    """What all cases share."""

    folder: Path
    run: Path
    fingerprint: str
    settings: PredictSettings
    created: str
    cache: Path | None
    """Folder for the copies of objects of a storage; None if there are none."""


_Ended = Literal["done", "failed", "elsewhere", "before"]


def predict_cohort(
    source: StrPath,
    run: StrPath,
    out: StrPath,
    *,
    settings: PredictSettings | None = None,
    part: tuple[int, int] = (1, 1),
    workers: Workers | None = None,
    track: Track = silent,
) -> CohortSummary:
    """Apply a trained model to every case, and write each to a folder of its own.

    Cases that an earlier run ended are kept, done or failed. A case that fails does not stop the
    others.

    Parameters
    ----------
    source, run, settings
        As for `glomerulab.pipeline.predict.predict`; `settings.n_workers` are processes, each of
        which takes one case at a time.
    out : Path
        Gets ``cohort.json``, ``cases.parquet``, ``cases/`` and ``status/``.
    part : tuple of int, default (1, 1)
        Number of a part, from 1, and how many there are: ``(7, 100)`` takes the seventh hundredth
        of the cases.
    workers : Workers, optional
        Of a cluster, which sees the same paths; in place of processes of this machine.

    Returns
    -------
    CohortSummary

    Raises
    ------
    ConfigError
        If `part` is no part.
    OutputError
        If `out` holds another cohort, or cannot be written to.
    GlomerulabError
        If the source or the model cannot be read.
    """
    source, run = Path(source).absolute(), Path(run).absolute()
    folder = CohortFolder(Path(out).absolute())
    settings = _absolute(settings or PredictSettings())
    check_options(run, settings)
    card, fingerprint = read_identity(run)
    with _no_garbage_collection():
        found = read_source(source, card, settings)
        if settings.regions is not None and found.slides:
            check_regions(Path(settings.regions), n_slides=found.n_slides)
        table, rows = _cases(found)
    created = folder.begin(_record(fingerprint, settings), table, created=_time())
    mine = table[part_slice(part, len(table))]
    states = folder.states()
    is_waiting = [states.get(name) not in {"done", "failed"} for name in mine["name"]]
    waiting = _Cases(found, mine[is_waiting], rows)
    job = _Job(
        folder.folder,
        run,
        fingerprint,
        settings=replace(settings, n_workers=1),
        created=created,
        cache=cache_folder() if url_of(source) or _shared_urls(run, settings) else None,
    )
    ended = _run(waiting, job, folder, workers, n_workers=settings.n_workers, track=track)
    # A worker that Dask retired may have ended a case that it had given to another.
    is_taken = [ended[case] == "elsewhere" for case in waiting.table["case"]]
    taken = waiting.table[is_taken]
    ended |= _run(_Cases(found, taken, rows), job, folder, None, n_workers=1, track=silent)
    return CohortSummary(
        folder.folder,
        n_cases=len(mine),
        n_before=len(mine) - len(waiting),
        n_done=sum(1 for state in ended.values() if state == "done"),
        failed=tuple(case for case, state in ended.items() if state == "failed"),
        n_elsewhere=sum(1 for state in ended.values() if state == "elsewhere"),
    )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep the collector from visiting hundreds of thousands of new rows again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _run(
    cases: Sequence[_Case],
    job: _Job,
    folder: CohortFolder,
    workers: Workers | None,
    *,
    n_workers: int,
    track: Track,
) -> dict[str, _Ended]:
    ended: dict[str, _Ended] = {}
    work = partial(_predict_case, job=job)
    with closing(map_outcomes(work, cases, n_workers=n_workers, workers=workers)) as outcomes:
        for one in track(outcomes, "Predicting cases", len(cases)):
            if one.error is not None:  # it ended its worker each time
                folder.fail(one.item.case, one.item.name, one.error.message, CaseCounts())
            ended[one.item.case] = one.value or "failed"
    return ended


def _absolute(settings: PredictSettings) -> PredictSettings:
    """Return settings that mean the same in another working folder."""
    regions, detector = settings.regions, settings.detector
    return replace(
        settings,
        regions=None if regions is None else Path(regions).absolute(),
        detector=None if detector is None else Path(str(detector)).absolute(),
    )


def _cases(source: Source) -> tuple[pd.DataFrame, list[NDArray[np.intp]]]:
    """Divide a source into cases, in the order of its rows.

    Returns
    -------
    table : DataFrame
        ``case``, ``name``, and ``source``, a hash of what the case is made of: its slides as the
        table names them, or its rows.
    rows : list of ndarray
        Of each case, their numbers in the source.
    """
    if source.manifest is None:
        # In a storage a slide is the same whatever folder holds its copy.
        cache = f"{cache_folder()}/s3/" if url_of(Path(source.where)) else None
        texts = [repr(one).replace(cache, "s3://") if cache else repr(one) for one in source.slides]
        of_row = np.array([one.patient_id or one.slide_id for one in source.slides], dtype=object)
    else:
        table = source.manifest.table
        header = tuple(table)
        texts = [repr((header, row)) for row in table.itertuples(index=False, name=None)]
        ids = table["patient_id"].fillna(table["slide_id"]).fillna(table["image_id"])
        of_row = ids.astype(str).to_numpy(dtype=object)
    numbers, cases = pd.factorize(of_row)
    order = np.argsort(numbers, kind="stable")
    ends = np.cumsum(np.bincount(numbers, minlength=len(cases))).tolist()
    rows = [order[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    digests = [_digest("\n".join([texts[row] for row in some])) for some in rows]
    names = distinct_names(list(cases))
    table = pd.DataFrame({"case": cases, "name": names, "source": digests}, dtype=object)
    return table, rows


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _record(fingerprint: str, settings: PredictSettings) -> dict[str, Any]:
    """Return the settings that determine the results."""
    detector = settings.detector
    return {
        "research_use_only": True,
        "model": fingerprint,
        "detector": None if detector is None else kept(open_detector, detector).facts.model_dump(),
        "margin": settings.margin,
        "mpp_override": settings.mpp_override,
        "stain": settings.stain,
        "symmetries": settings.symmetries,
        "saliency": settings.saliency,
        "regions": settings.region_options.record(),
    }


def _time() -> str:
    """Return now, or the time that the environment sets, in UTC."""
    seconds = os.environ.get(CREATED, "")
    now = int(seconds) if seconds.isdecimal() else time.time()
    return dt.datetime.fromtimestamp(now, dt.UTC).isoformat(timespec="seconds")


def _predict_case(one: _Case, *, job: _Job) -> _Ended:
    """Process one case in a worker, which keeps the model from case to case."""
    folder, start = CohortFolder(job.folder), time.monotonic()
    with folder.claimed(one.name) as is_mine:
        if not is_mine:
            return "elsewhere"
        if folder.status(one.name) is not None:
            return "before"
        with folder.attempt(one.name) as number:
            if number > N_ATTEMPTS:
                folder.fail(one.case, one.name, too_often(), CaseCounts())
                return "failed"
            seconds = partial(seconds_since, start)
            try:
                counts = _predict_into(folder.case_folder(one.name), one, job)
            except OutputError:  # no fault of the case: the run ends, and the next one goes on
                raise
            except GlomerulabError as error:
                reason, failed = str(error), CaseCounts(seconds=seconds())
            except Exception as error:  # a fault in one case must not end the others
                full = disk_error(error) if isinstance(error, OSError) else None
                if full is not None:
                    raise full from error
                reason = f"unexpected error, please report it: {type(error).__name__}: {error}"
                failed = CaseCounts(seconds=seconds(), traceback=traceback.format_exc())
            else:
                counts = counts.model_copy(update={"seconds": seconds()})
                folder.finish(one.case, one.name, counts)
                return "done"
            folder.fail(one.case, one.name, reason, failed)
            return "failed"


def _predict_into(folder: Path, one: _Case, job: _Job) -> CaseCounts:
    """Write the folder of a case, and return its counts and grades."""
    remove_partial_files(make_folder(folder))  # of a process that was killed
    with _copies(one.source, job):
        return _predict_there(folder, one, job)


@contextmanager
def _copies(source: Source, job: _Job) -> Iterator[None]:
    """Hold copies of what a case is made of while the block runs, if it is in a storage."""
    if job.cache is None:
        yield
        return
    if cache_folder() != job.cache:
        raise OutputError(
            f"the cache of this worker is another folder than {job.cache}, that of the command; "
            "set GLOMERULAB_CACHE alike for both",
            where=str(cache_folder()),
        )
    for url in _shared_urls(job.run, job.settings):
        _fetch_once(url, job.cache)
    manifest = source.manifest
    files = [one.path for one in source.slides] if manifest is None else manifest.image_paths()
    with staged(files):
        yield


def _shared_urls(run: Path, settings: PredictSettings) -> list[str]:
    """Return the URLs of what all cases need, as far as it is in a storage."""
    paths = (run, settings.regions, settings.detector)
    found = (url_of(path) for path in paths if isinstance(path, Path))
    return [url for url in found if url is not None]


@lru_cache
def _fetch_once(url: str, cache: Path) -> None:
    """Fetch what this process uses as long as it lives."""
    del cache
    local_copy(url)


def _predict_there(folder: Path, one: _Case, job: _Job) -> CaseCounts:
    with _no_fault_of_the_case():
        files, model = kept(_open, job.run)
    if model.fingerprint != job.fingerprint:
        raise OutputError(
            "the model changed since the run began; run again into another --out",
            where=str(job.run),
        )
    settings = job.settings
    if settings.detector is not None:
        with _no_fault_of_the_case():
            detector = kept(open_detector, settings.detector)
        settings = replace(settings, detector=detector)
    done = predict_source(
        one.source,
        files,
        folder,
        model,
        settings=settings,
        created=job.created,
    )
    written = read_case_folder(folder)
    summaries = [case.summary for case in build_cases(written)]
    return CaseCounts(
        synthetic=written.facts.is_synthetic,
        slides=len(one.source.slides),
        images=done.n_images,
        glomeruli=sum(summary.n_glomeruli for summary in summaries),
        referred=done.n_referred,
        failures=len(done.failures),
        grades=_grades(summary.rules for summary in summaries),
    )


@contextmanager
def _no_fault_of_the_case() -> Iterator[None]:
    """End the run, or leave the case to another worker, where a model cannot be opened."""
    try:
        yield
    except OutputError:
        raise
    except GlomerulabError as error:
        raise OutputError(error.message, where=error.where) from error


def _grades(rules: Iterable[Sequence[Any]]) -> dict[str, str]:
    """Return the grade of each item of each rule set, ``?`` where several are possible."""
    return {
        f"{rule.rule_set.name}: {result.item.name}": (
            "" if result.grade is None else "?" if len(result.possible) > 1 else result.grade.grade
        )
        for of_case in rules
        for rule in of_case
        for result in rule.items
    }


def _open(run: Path) -> tuple[SealedFolder, TrainedModel]:
    files = open_model_folder(run)
    return files, load_model(files)
