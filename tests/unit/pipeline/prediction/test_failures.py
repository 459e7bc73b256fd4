import csv
from types import SimpleNamespace

import pandas as pd

from glomerulab.pipeline.extract import Failure
from glomerulab.pipeline.prediction.failures import unjudged_of, write_failures

FAILURES = (
    Failure("s1", "g4", "outside the slide"),
    Failure("s2", "", "no slide"),
    Failure("", "crop9", "truncated"),
    Failure("", "crop8", "truncated"),
)


def test_each_failure_is_told_in_the_report_of_its_own_case() -> None:
    table = pd.DataFrame(
        {"image_id": ["crop9", "crop8"], "slide_id": ["s9", pd.NA], "patient_id": ["p9", pd.NA]}
    )
    found = unjudged_of(FAILURES, {"s1": "p1", "s2": None}, SimpleNamespace(table=table))
    assert [(one.case, one.slide_id, one.name) for one in found] == [
        ("p1", "s1", "g4"),
        ("s2", "s2", ""),
        ("p9", "s9", "crop9"),
        ("crop8", "", "crop8"),
    ]


def test_the_table_holds_reasons_and_goes_when_there_are_none(tmp_path) -> None:
    path = tmp_path / "failures.csv"
    write_failures(path, FAILURES)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["slide", "region_or_image", "reason"]
    assert rows[1:] == [[one.slide, one.region, one.reason] for one in FAILURES]
    write_failures(path, ())
    assert not path.exists()
