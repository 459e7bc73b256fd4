"""Gather a cohort: its calls as one Parquet data set, its failures, and a page of constant size."""

import csv
import io
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet
from pydantic import ValidationError

from glomerulab.cases.case_folder import CASE_FILE, PREDICTIONS_FILE, CaseFacts
from glomerulab.errors import GlomerulabError, OutputError
from glomerulab.i18n.catalogue import Language
from glomerulab.pipeline.cohort_folder import CohortFolder, State, Status
from glomerulab.pipeline.predict import FAILURES_FILE
from glomerulab.reports.cohort import CohortFacts, write_cohort_page
from glomerulab.runtime.files import (
    atomic_write,
    make_folder,
    output_errors,
    read_content,
    read_utf8,
)
from glomerulab.runtime.messages import count_noun, first_problem
from glomerulab.runtime.parallel import map_outcomes
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.tables import not_a_formula

__all__ = ["MergedCohort", "count_states", "merge_cohort"]

CALLS_FOLDER = "calls"
PAGE = "cohort.html"
CASES_PER_SHARD = 1000
AGAIN = "delete the file of the case in status/ and run the same `glomerulab predict` again"
N_SLOWEST = 10
N_REASONS = 20

TEXT = ("image_id", "patient_id", "slide_id", "region_id", "stain", "reasons", "image_path")
NUMBERS = ("mpp", "x", "y", "width", "height", "distance", "sharpness", "detector_score")
FURTHER = ("outline", "source_id", "source_class", "saliency_path")


@dataclass(frozen=True, slots=True)
class MergedCohort:
    """What was gathered."""

    facts: CohortFacts
    calls: Path
    """Folder of the Parquet data set."""
    page: Path


def count_states(folder: CohortFolder) -> dict[State, int]:
    """Return how many cases are done, failed, running and pending."""
    names = folder.cases()["name"]
    states = folder.states()
    counts = Counter(states.get(name, "pending") for name in names)
    return {state: counts[state] for state in ("done", "failed", "running", "pending")}


def failed_cases(folder: CohortFolder) -> Iterator[Status]:
    """Yield the failed cases in their order."""
    states = folder.states()
    for name in folder.cases()["name"]:
        if states.get(name) == "failed":
            status = folder.status(name)
            if status is not None:
                yield status


def merge_cohort(
    out: Path,
    others: Sequence[Path] = (),
    *,
    language: Language = "en",
    n_workers: int = 1,
    track: Track = silent,
) -> MergedCohort:
    """Write ``calls/``, ``failures.csv`` and ``cohort.html`` of a cohort.

    Parameters
    ----------
    out : Path
        Folder of a cohort.
    others : sequence of Path
        Folders of the same cohort on other disks, whose cases are moved to `out`.
    language : {"en", "zh"}, default "en"
        Of the page.
    n_workers : int, default 1
        Processes that read the cases.

    Raises
    ------
    OutputError
        If a folder is no cohort, or one of others has other settings; or if no case is done, which
        leaves the folder as it is.
    GlomerulabError
        If the predictions of a case cannot be read; run it again.
    """
    folder = CohortFolder(out)
    with output_errors("the cohort cannot be gathered", out):
        for other in others:
            _take(folder, CohortFolder(other))
        return _gather(folder, language, n_workers, track)


def _gather(folder: CohortFolder, language: Language, n_workers: int, track: Track) -> MergedCohort:
    cases = folder.cases()
    states = folder.states()
    if not any(states.get(name) == "done" for name in cases["name"]):
        n_failed = sum(1 for name in cases["name"] if states.get(name) == "failed")
        raise OutputError(
            f"no case of this cohort is done ({n_failed} of {len(cases)} failed), so there is "
            "nothing to gather; `glomerulab cohort status` lists the reasons, and the same "
            "`glomerulab predict` goes on",
            where=str(folder.folder),
        )
    statuses = [
        folder.status(name) if states.get(name) in {"done", "failed"} else None
        for name in track(cases["name"], "Reading cases", len(cases))
    ]
    calls = _write_calls(folder, [one for one in statuses if one], n_workers, track)
    n_failures = _write_failures(folder, [one for one in statuses if one])
    facts = _facts(folder, statuses, n_slide_failures=n_failures)
    page = folder.folder / PAGE
    write_cohort_page(facts, page, language=language)
    return MergedCohort(facts, calls, page)


def _take(folder: CohortFolder, other: CohortFolder) -> None:
    """Move the cases that ended in another folder of the same cohort."""
    if other.record().settings != folder.record().settings:
        raise OutputError(
            "this folder holds a cohort with other settings; merge folders of one cohort",
            where=str(other.folder),
        )
    mine = folder.states()
    names = set(folder.cases()["name"])
    for name, state in other.states().items():
        if state not in {"done", "failed"} or mine.get(name) in {"done", "failed"}:
            continue
        if name not in names:
            raise OutputError(
                f"this folder has the case {name!r}, which is not of the cohort in {folder.folder}",
                where=str(other.folder),
            )
        source = other.case_folder(name)
        if source.is_dir():
            target = folder.case_folder(name)
            shutil.rmtree(target, ignore_errors=True)
            shutil.move(source, target)
        # Last, so that a case without its files is never said to be done.
        ended = f"{name}.{state}.json"
        shutil.move(other.folder / "status" / ended, folder.folder / "status" / ended)


def _write_calls(
    folder: CohortFolder, statuses: Sequence[Status], n_workers: int, track: Track
) -> Path:
    """Write the calls of all cases that are done, a thousand cases to a file."""
    done = [(one.name, one.facts.images) for one in statuses if one.state == "done"]
    place = folder.folder / CALLS_FOLDER
    partial_place = place.with_name(f".{CALLS_FOLDER}.partial")
    shutil.rmtree(partial_place, ignore_errors=True)
    starts = range(0, len(done), CASES_PER_SHARD)
    shards = [(n, tuple(done[at : at + CASES_PER_SHARD])) for n, at in enumerate(starts)]
    write = partial(_write_shard, folder=folder, place=partial_place)
    make_folder(partial_place)
    with closing(map_outcomes(write, shards, n_workers=n_workers)) as outcomes:
        for one in track(outcomes, "Writing calls", len(shards)):
            if one.error is not None:
                raise one.error
    shutil.rmtree(place, ignore_errors=True)
    partial_place.rename(place)
    return place


def _write_shard(
    shard: tuple[int, tuple[tuple[str, int], ...]], *, folder: CohortFolder, place: Path
) -> None:
    """Write the calls of cases, given as name and number of images."""
    number, cases = shard
    schema = _schema(_labels(folder.case_folder(cases[0][0]) / CASE_FILE))
    tables = [_calls(folder.case_folder(name), name, n, schema) for name, n in cases]
    target = make_folder(place / f"shard={number:05}")
    with atomic_write(target / "calls.parquet") as temporary:
        parquet.write_table(pa.concat_tables(tables), temporary)


def _labels(path: Path) -> list[str]:
    content = read_content(path, CASE_FILE, error=GlomerulabError, way_out=AGAIN)
    try:
        facts = CaseFacts.model_validate_json(content)
    except ValidationError as error:
        raise GlomerulabError(f"{first_problem(error)}; {AGAIN}", where=str(path)) from error
    return [label.id for label in facts.model.labels]


def _schema(labels: Sequence[str]) -> pa.Schema:
    """Return the columns of every shard, whatever the cases have: readers want one schema."""
    columns: list[tuple[str, Any]] = [("case", pa.string())]
    columns += [(name, pa.string()) for name in TEXT]
    columns += [(name, pa.float64()) for name in NUMBERS]
    for label in labels:
        columns += [
            (f"label_{label}", pa.int8()),
            (f"probability_{label}", pa.float64()),
            (f"called_{label}", pa.int8()),
            (f"state_{label}", pa.string()),
        ]
    columns += [("proposed", pa.int8())]
    columns += [(name, pa.string()) for name in FURTHER]
    return pa.schema(columns)


def _calls(folder: Path, case: str, n_images: int, schema: pa.Schema) -> pa.Table:
    """Read the calls of a case; its image paths stay relative to its folder."""
    path = folder / PREDICTIONS_FILE
    read = [field for field in schema if field.name != "case"]
    try:
        table = arrow_csv.read_csv(
            path,
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types={field.name: field.type for field in read},
                include_columns=[field.name for field in read],
                include_missing_columns=True,
                strings_can_be_null=True,
                null_values=[""],
                quoted_strings_can_be_null=True,
            ),
        )
    except (OSError, pa.ArrowInvalid) as error:
        raise GlomerulabError(
            f"the predictions of the case cannot be read ({error}); {AGAIN}", where=str(path)
        ) from error
    if len(table) - table["image_id"].null_count != n_images:
        raise GlomerulabError(
            f"the predictions of the case had {count_noun(n_images, 'image')} when it was done, "
            f"now {len(table) - table['image_id'].null_count}; {AGAIN}",
            where=str(path),
        )
    return table.add_column(0, schema.field("case"), pa.array([case] * len(table), pa.string()))


def _write_failures(folder: CohortFolder, statuses: Sequence[Status]) -> int:
    """Write what could not be classified, and return how many lines that is."""
    n_lines = 0
    path = folder.folder / FAILURES_FILE
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("case", "slide", "region_or_image", "reason"))
        for one in statuses:
            rows = [("", "", one.reason)] if one.state == "failed" else _failures(folder, one)
            for row in rows:
                writer.writerow(map(not_a_formula, (one.case, *row)))
                n_lines += 1
    return n_lines


def _failures(folder: CohortFolder, status: Status) -> list[tuple[str, ...]]:
    path = folder.case_folder(status.name) / FAILURES_FILE
    if not status.facts.failures or not path.is_file():
        return []
    text = read_utf8(path, FAILURES_FILE, error=GlomerulabError, way_out=AGAIN)
    try:
        rows = [(*row, "", "", "")[:3] for row in csv.reader(io.StringIO(text, newline=""))]
    except csv.Error as error:
        raise GlomerulabError(f"the file is no CSV; {AGAIN}", where=str(path)) from error
    return rows[1:]


def _facts(
    folder: CohortFolder, statuses: Sequence[Status | None], *, n_slide_failures: int
) -> CohortFacts:
    done = [one for one in statuses if one is not None and one.state == "done"]
    failed = [one for one in statuses if one is not None and one.state == "failed"]
    grades: dict[str, Counter[str]] = {}
    for one in done:
        for item, grade in one.facts.grades.items():
            grades.setdefault(item, Counter())[grade] += 1
    slowest = sorted(done, key=lambda one: -one.facts.seconds)[:N_SLOWEST]
    reasons = Counter(one.reason for one in failed)
    return CohortFacts(
        created=folder.record().created,
        is_synthetic=any(one.facts.synthetic for one in done),
        n_cases=len(statuses),
        n_done=len(done),
        n_failed=len(failed),
        n_images=sum(one.facts.images for one in done),
        n_glomeruli=sum(one.facts.glomeruli for one in done),
        n_referred=sum(one.facts.referred for one in done),
        n_cases_referred=sum(1 for one in done if one.facts.referred),
        n_failures=n_slide_failures,
        reasons=tuple(reasons.most_common(N_REASONS)),
        n_other_reasons=max(len(reasons) - N_REASONS, 0),
        grades={item: tuple(sorted(found.items())) for item, found in sorted(grades.items())},
        slowest=tuple((one.case, one.name, one.facts.seconds) for one in slowest),
    )
