"""What could not be judged: as a table for whoever repairs it, and for the report of its case.

A report that did not say so would show fewer glomeruli than were drawn, and look whole.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from glomerulab.cases.case_folder import FailureFacts
from glomerulab.cohort.manifest import Manifest
from glomerulab.pipeline.extract import Failure
from glomerulab.runtime.files import atomic_write

__all__ = ["FAILURES_FILE", "unjudged_of", "write_failures"]

FAILURES_FILE = "failures.csv"


def unjudged_of(
    failures: Sequence[Failure], patients: Mapping[str, str | None], manifest: Manifest
) -> tuple[FailureFacts, ...]:
    """Say of which case each failure is.

    Parameters
    ----------
    failures : sequence of Failure
        Of slides and regions; or of images, which have no slide and their image id as region.
    patients : mapping of str to str or None
        Of the slides, by slide id.
    manifest : Manifest
        The crops.

    Returns
    -------
    tuple of Unjudged
    """
    table = manifest.table
    rows = {
        str(name): ("" if pd.isna(slide) else str(slide), None if pd.isna(who) else str(who))
        for name, slide, who in zip(
            table["image_id"], table["slide_id"], table["patient_id"], strict=True
        )
    }
    found = []
    for one in failures:
        slide, patient = one.slide, patients.get(one.slide)
        if not slide and one.region in rows:
            slide, patient = rows[one.region]
        found.append(
            FailureFacts(case=patient or slide or one.region, slide_id=slide, name=one.region)
        )
    return tuple(found)


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write what could not be judged, each with its reason; no file where there is nothing.

    Parameters
    ----------
    path : Path
    failures : sequence of Failure
    """
    if not failures:
        path.unlink(missing_ok=True)
        return
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("slide", "region_or_image", "reason"))
        writer.writerows((one.slide, one.region, one.reason) for one in failures)
