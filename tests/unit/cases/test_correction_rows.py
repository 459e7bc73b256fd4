import csv
import resource
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glomerulab.cases.correction_rows import CorrectionRow, append_rows, read_rows
from glomerulab.errors import OutputError, PredictionsError

OLD = "time,by,image_id,labels,reason\n2026-01-01T00:00:00+00:00,A,x,cgn,seen\n"
ROW = CorrectionRow("2026-02-02T00:00:00+00:00", "B", "x", "fsg", "seen, twice", "10 20 30 40")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)  # surrogates are no text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(*[texts] * 5), min_size=1, max_size=4))
def test_whatever_people_write_comes_back_and_a_spreadsheet_reads_the_same(tmp_path, cells) -> None:
    path: Path = tmp_path / "o.csv"
    path.unlink(missing_ok=True)
    rows = tuple(CorrectionRow(*one) for one in cells)
    append_rows(path, lambda stored: rows[:1])
    append_rows(path, lambda stored: rows[1:])
    assert read_rows(path) == rows
    with path.open(encoding="utf-8", newline="") as file:
        assert [tuple(row[:5]) for row in list(csv.reader(file))[1:]] == list(cells)


def test_a_file_begun_without_places_goes_on_without_them(tmp_path) -> None:
    path = tmp_path / "o.csv"
    path.write_text(OLD)
    append_rows(path, lambda stored: [ROW])
    assert path.read_text() == OLD + '"2026-02-02T00:00:00+00:00","B","x","fsg","seen, twice"\n'
    assert [row.place for row in read_rows(path)] == ["", ""]


def test_a_last_line_that_an_editor_left_open_is_closed_first(tmp_path) -> None:
    path = tmp_path / "o.csv"
    path.write_bytes("\ufeff".encode() + OLD.rstrip("\n").encode())
    append_rows(path, lambda stored: [ROW])
    assert [row.by for row in read_rows(path)] == ["A", "B"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OLD + "2026,A,x\n", "entry 3 is not whole"),
        (OLD + "2026,A,x,cgn,seen,more\n", "entry 3 is not whole"),
        ("time,who\n2026,A\n", "columns must be time, by, image_id"),
        ("time,by,image_id,labels,reason,place\n2026,A,x,cgn,y,here\n", "entry 2 is not whole"),
        ("time,by,image_id,labels,reason\n\udcff,A,x,cgn,y\n", "cannot be read"),
    ],
)
def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path, content, message) -> None:
    path = tmp_path / "o.csv"
    path.write_bytes(content.encode(errors="surrogateescape"))
    before = path.read_bytes()
    with pytest.raises(PredictionsError, match=message):
        read_rows(path)
    with pytest.raises(PredictionsError, match=message):
        append_rows(path, lambda stored: [ROW])
    assert path.read_bytes() == before


def test_who_chooses_sees_all_that_is_there_and_nobody_comes_between(tmp_path) -> None:
    path = tmp_path / "o.csv"
    append_rows(path, lambda stored: [ROW])

    def add_once(stored: tuple[CorrectionRow, ...]) -> list[CorrectionRow]:
        return [] if len(stored) > 1 else [ROW]

    threads = [threading.Thread(target=append_rows, args=(path, add_once)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_rows(path)) == 2


def test_a_folder_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(OutputError, match="cannot write") as caught:
        append_rows(tmp_path / "no" / "o.csv", lambda stored: [ROW])
    assert caught.value.where == str(tmp_path / "no" / "o.csv")
    assert read_rows(tmp_path / "no" / "o.csv") == ()


def test_a_disk_that_is_full_half_way_through_a_row_leaves_the_file_as_it_was(tmp_path) -> None:
    path = tmp_path / "o.csv"
    append_rows(path, lambda stored: [ROW])
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
    try:
        with pytest.raises(OutputError, match="cannot write"):
            append_rows(path, lambda stored: [ROW])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    append_rows(path, lambda stored: [ROW])
    assert read_rows(path) == (ROW, ROW)
