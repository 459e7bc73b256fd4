import csv
import datetime as dt
import os
import resource
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glomerulab.cases.case import build_cases
from glomerulab.cases.corrections import (
    CORRECTIONS_FILE,
    CorrectionConflictError,
    CorrectionRow,
    OutdatedCorrectionError,
    add_correction,
    append_rows,
    import_corrections,
    read_corrections,
    read_rows,
    submit_correction,
)
from glomerulab.errors import OutputError, PredictionsError, TaxonomyError


def current(folder):
    return read_corrections(folder)[0]


def outdated(folder):
    return read_corrections(folder)[1]


def test_a_correction_comes_back_with_name_time_and_reason(folder) -> None:
    add_correction(
        folder, "b", labels=["cgn", "Segmental sclerosis"], by="Dr Li", reason='"sure"\nso'
    )
    entry = current(folder)[0]
    assert entry.labels == {"cgn", "fsg"}
    assert (entry.by, entry.reason) == ("Dr Li", '"sure"\nso')
    assert entry.time.endswith("+00:00")


def _moved(folder, image: str, by_px: int):
    """The same predictions, made anew with one region drawn elsewhere."""
    calls = tuple(
        replace(call, box=replace(call.box, x=call.box.x + by_px))
        if call.image_id == image
        else call
        for call in folder.calls
    )
    return replace(folder, calls=calls)


def test_corrections_of_missing_images_are_outdated_and_stay_in_the_file(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="A", reason="x")
    add_correction(folder, "c", labels=["fsg"], by="A", reason="y")
    before = (folder.folder / CORRECTIONS_FILE).read_bytes()
    anew = replace(folder, calls=tuple(one for one in folder.calls if one.image_id != "b"))
    assert [entry.image_id for entry in current(anew)] == ["c"]
    (lost,) = outdated(anew)
    assert (lost.row.image_id, lost.row.reason, lost.why) == ("b", "x", "no_image")
    add_correction(anew, "c", labels=["cgn"], by="B", reason="z")
    assert (folder.folder / CORRECTIONS_FILE).read_bytes().startswith(before)
    assert outdated(folder) == ()  # the first predictions again: it counts again


def test_a_correction_does_not_apply_to_another_region_of_the_same_name(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="A", reason="x")
    assert current(_moved(folder, "b", 3)) == current(folder)  # drawn a little better
    anew = _moved(folder, "b", 500)
    assert current(anew) == ()
    assert [one.why for one in outdated(anew)] == ["moved"]
    add_correction(anew, "b", labels=["fsg"], by="B", reason="the other one")
    assert [entry.by for entry in current(anew)] == ["B"]


def test_an_earlier_correction_does_not_apply_again_when_a_later_one_is_outdated(folder) -> None:
    path: Path = folder.folder / CORRECTIONS_FILE
    path.write_text(
        "time,by,image_id,labels,reason\n2026-01-01T00:00:00+00:00,A,b,cgn,x\n2026-01-02T00:00:00+00:00,B,b,tumour,y\n"
    )
    assert current(folder) == ()
    assert [one.why for one in outdated(folder)] == ["superseded", "other_labels"]


NEW = "time,by,image_id,labels,reason,place\n"
OLD = "time,by,image_id,labels,reason\n2026-01-01T00:00:00+00:00,A,x,cgn,seen\n"
ROW = CorrectionRow("2026-02-02T00:00:00+00:00", "B", "x", "fsg", "seen, twice", "10 20 30 40")

# Surrogates are no text, and NUL is refused.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(*[texts] * 5), min_size=1, max_size=4))
def test_any_text_comes_back_and_a_spreadsheet_reads_the_same(tmp_path, cells) -> None:
    path: Path = tmp_path / "o.csv"
    path.unlink(missing_ok=True)
    rows = tuple(CorrectionRow(*one) for one in cells)
    append_rows(path, lambda stored: rows[:1])
    append_rows(path, lambda stored: rows[1:])
    assert read_rows(path) == rows
    with path.open(encoding="utf-8", newline="") as file:
        assert [tuple(row[:5]) for row in list(csv.reader(file))[1:]] == list(cells)


def test_a_file_without_places_is_continued_without_them(tmp_path) -> None:
    path = tmp_path / "o.csv"
    path.write_text(OLD)
    append_rows(path, lambda stored: [ROW])
    assert path.read_text() == OLD + '"2026-02-02T00:00:00+00:00","B","x","fsg","seen, twice"\n'
    assert [row.place for row in read_rows(path)] == ["", ""]


def test_a_byte_order_mark_of_a_spreadsheet_is_no_damage(tmp_path) -> None:
    path = tmp_path / "o.csv"
    path.write_bytes("\ufeff".encode() + OLD.replace("\n", "\r\n").encode())
    append_rows(path, lambda stored: [ROW])
    assert [row.by for row in read_rows(path)] == ["A", "B"]


def test_a_file_torn_at_any_byte_is_refused_or_read_as_the_rows_before(tmp_path) -> None:
    path = tmp_path / "o.csv"
    quoted = CorrectionRow("2026-02-03T00:00:00+00:00", "新", "y", "cgn", 'a "b"\r\n, c', "")
    for start in (b"", OLD.encode()):
        path.write_bytes(start)
        append_rows(path, lambda stored: [ROW, quoted])
        rows, whole = read_rows(path), path.read_bytes()
        n_read = n_refused = 0
        for n_bytes in range(len(whole)):
            path.write_bytes(whole[:n_bytes])
            try:
                append_rows(path, lambda stored: [ROW])
            except PredictionsError:
                n_refused += path.read_bytes() == whole[:n_bytes]
                continue
            n_read += 1
            found = read_rows(path)[:-1]
            assert found == rows[: len(found)]
        assert (
            n_read == len(rows) + 1
        )  # at each line end: empty, header, and every row but the last


@pytest.mark.parametrize("text", ["a\x00b", "\x00"])
def test_a_correction_with_nul_is_refused_before_it_is_written(tmp_path, text) -> None:
    path = tmp_path / "o.csv"
    path.write_text(OLD)
    with pytest.raises(PredictionsError, match="NUL"):
        append_rows(path, lambda stored: [replace(ROW, reason=text)])
    assert path.read_text() == OLD


def test_a_disk_that_returns_something_else_is_not_acknowledged(tmp_path, monkeypatch) -> None:
    path = tmp_path / "o.csv"
    append_rows(path, lambda stored: [ROW])
    before = path.read_bytes()
    # A file that another program cuts between the write and the check, as a share may.
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.ftruncate(descriptor, len(before) + 5))
    with pytest.raises(OutputError, match="read back"):
        append_rows(path, lambda stored: [ROW])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OLD + "2026,A,x\n", "row 3"),
        (OLD + "2026,A,x,cgn,seen,more\n", "row 3"),
        ("time,who\n2026,A\n", "columns"),
        (NEW + "2026,A,x,cgn,y,here\n", "row 2"),
        ("time,by,image_id,labels,reason\n\udcff,A,x,cgn,y\n", "not text in UTF-8"),
        (OLD + "2026,A,x,cgn,see", "row 3.*torn"),
        (OLD + '2026,A,x,cgn,"see\n', "row 3.*torn"),
        (OLD + '2026,A,x,cgn,"see"n\n', "row 3.*damaged"),
        (NEW + f"2026,A,x,cgn,see,{'9' * 5000} 1 1 1\n", "row 2.*damaged"),
        (NEW + "2026,A,x,cgn,see,\u0661 1 1 1\n", "row 2.*damaged"),
        (OLD + "2026,A,x,cgn,s\x00n\n", "line 3.*NUL"),
        (OLD + "\x00" * 512, "line 3.*NUL"),
        (OLD.replace("\n", "\r"), "line 1.*carriage return"),
        (OLD + "2026,A,x,cgn,seen\r2027,A,x,cgn,seen\n", "line 3.*carriage return"),
        (OLD + OLD, "row 3.*second header"),
        (OLD + "\ufeff" + OLD, "row 3.*second header"),
        (OLD.encode("utf-16").decode("utf-8", "surrogateescape"), "UTF-16"),
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


def test_rows_are_chosen_and_appended_under_one_lock(tmp_path) -> None:
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


def test_a_missing_folder_is_named(tmp_path) -> None:
    with pytest.raises(OutputError, match="cannot be written") as caught:
        append_rows(tmp_path / "no" / "o.csv", lambda stored: [ROW])
    assert caught.value.where == str(tmp_path / "no" / "o.csv")
    assert read_rows(tmp_path / "no" / "o.csv") == ()


def test_a_disk_that_fills_up_within_a_row_leaves_the_file_unchanged(tmp_path) -> None:
    path = tmp_path / "o.csv"
    append_rows(path, lambda stored: [ROW])
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            append_rows(path, lambda stored: [ROW])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    append_rows(path, lambda stored: [ROW])
    assert read_rows(path) == (ROW, ROW)


def test_a_second_correction_is_appended_to_the_first(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="A", reason="x")
    before = (folder.folder / CORRECTIONS_FILE).read_bytes()
    add_correction(folder, "b", labels=["not_a_glomerulus"], by="B", reason="y")
    assert (folder.folder / CORRECTIONS_FILE).read_bytes().startswith(before)
    assert [entry.labels for entry in current(folder)] == [{"cgn"}, None]


@pytest.mark.parametrize(
    ("image", "labels", "by", "reason", "error", "message"),
    [
        ("unknown", ["cgn"], "A", "x", PredictionsError, "no image 'unknown'.*predictions.csv"),
        ("b", ["cgn", "normal"], "A", "x", PredictionsError, "^labels .*exclude .*give one"),
        ("b", ["tumour"], "A", "x", TaxonomyError, "^unknown label 'tumour'.*taxonomy paper.*cgn"),
        ("b", ["normaal"], "A", "x", TaxonomyError, "did you mean 'normal'"),
        ("b", [], "A", "x", PredictionsError, "no label"),
        ("b", ["cgn"], " ", "x", PredictionsError, "name"),
        ("b", ["cgn"], "A", "", PredictionsError, "reason"),
    ],
)
def test_an_incomplete_correction_is_refused_and_not_written(
    folder, image, labels, by, reason, error, message
) -> None:
    with pytest.raises(error, match=message):
        add_correction(folder, image, labels=labels, by=by, reason=reason)
    assert not (folder.folder / CORRECTIONS_FILE).exists()


def test_a_damaged_file_is_not_appended_to(folder) -> None:
    path: Path = folder.folder / CORRECTIONS_FILE
    path.write_text("time,by,image_id,labels,reason\n2026,A,b\n")
    with pytest.raises(PredictionsError, match="row 2"):
        add_correction(folder, "b", labels=["cgn"], by="A", reason="x")
    assert path.read_text().count("\n") == 2


HEADER = "time,by,image_id,labels,reason\n"


def _file(folder, *rows: str) -> Path:
    path: Path = folder.folder / "p1.changes.csv"
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def test_imported_corrections_keep_their_times_and_are_added_once(folder) -> None:
    path = _file(
        folder,
        '"2019-01-02T03:04:05+00:00","Dr Li","b","cgn+fsg","both, ""sure"""',
        "2019-01-02T03:05:05+00:00,Dr Li,c,not_a_glomerulus,tubule",
    )
    done = import_corrections(folder, path)
    assert [entry.image_id for entry in done.added] == ["b", "c"]
    assert current(folder) == done.added
    assert done.added[0].reason == 'both, "sure"'
    again = import_corrections(folder, path)
    assert (again.added, len(again.already_present)) == ((), 2)
    assert len(current(folder)) == 2


def test_an_imported_correction_does_not_replace_a_later_one(folder) -> None:
    add_correction(folder, "b", labels=["normal"], by="Dr Wu", reason="recut")
    path = _file(
        folder, "2020-01-01T00:00:00+00:00,A,b,cgn,x", "2020-01-01T00:00:00+00:00,A,c,cgn,x"
    )
    done = import_corrections(folder, path)
    assert [entry.image_id for entry in done.added] == ["c"]
    assert [(mine.by, later.by) for mine, later in done.conflicts] == [("A", "Dr Wu")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2020-01-01T00:00:00+00:00,A,unknown,cgn,x", "no image 'unknown'"),
        ("2020-01-01T00:00:00+00:00,A,c,normal+cgn,x", "exclude each other"),
        ("2020-01-01T00:00:00+00:00,,c,cgn,x", "name"),
        ("2020-01-01T00:00:00+00:00,A,c,cgn, ", "reason"),
        ("yesterday,A,c,cgn,x", "'yesterday'"),
        ("2020-01-01T00:00:00+00:00,A,c", "row 3"),
        ("2999-01-01T00:00:00+00:00,A,c,cgn,x", "2999-01-01.* in the future"),
        ("0001-01-01T00:00:00+14:00,A,c,cgn,x", "0001-01-01.* invalid"),
    ],
)
def test_nothing_of_a_damaged_file_is_imported(folder, row, message) -> None:
    path = _file(folder, "2020-01-01T00:00:00+00:00,A,b,cgn,x", row)
    with pytest.raises(PredictionsError, match=message):
        import_corrections(folder, path)
    assert not (folder.folder / CORRECTIONS_FILE).exists()


def test_corrections_of_other_regions_are_refused(folder) -> None:
    path = _file(folder)
    path.write_text(
        "time,by,image_id,labels,reason,place\n"
        "2020-01-01T00:00:00+00:00,A,b,cgn,x,90000 90000 50 50\n"
    )
    with pytest.raises(PredictionsError, match="lies elsewhere"):
        import_corrections(folder, path)
    assert not (folder.folder / CORRECTIONS_FILE).exists()


def test_a_file_of_another_kind_names_what_writes_one(folder) -> None:
    for content in (b"a,b\n1,2\n", b"not a table"):
        path = folder.folder / "notes.csv"
        path.write_bytes(content)
        with pytest.raises(PredictionsError, match="page of a case's report"):
            import_corrections(folder, path)


def test_a_missing_file_to_import_is_named(folder) -> None:
    with pytest.raises(PredictionsError, match="no such file"):
        import_corrections(folder, folder.folder / "nowhere.csv")


def test_a_clock_that_is_a_little_fast_is_no_future(folder) -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=2)
    path = _file(folder, f"{soon.isoformat(timespec='seconds')},A,c,cgn,x")
    assert len(import_corrections(folder, path).added) == 1


MINE = CorrectionRow("2026-01-01T00:00:00+00:00", "A", "b", "cgn", "x")
THEIRS = CorrectionRow("2026-01-01T00:00:01+00:00", "B", "b", "fsg", "y")


def test_a_submitted_correction_is_added_once(folder) -> None:
    assert submit_correction(folder, MINE, n_seen=0) == 1
    assert submit_correction(folder, MINE, n_seen=0) == 1  # its response was lost
    assert submit_correction(folder, THEIRS, n_seen=1) == 2
    assert [entry.by for entry in current(folder)] == ["A", "B"]
    assert build_cases(folder)[0].n_corrections(folder.calls[2]) == 2


def test_a_submitted_correction_conflicts_with_one_that_its_author_has_not_seen(folder) -> None:
    submit_correction(folder, THEIRS, n_seen=0)
    before = (folder.folder / CORRECTIONS_FILE).read_bytes()
    with pytest.raises(CorrectionConflictError, match="somebody else") as caught:
        submit_correction(folder, MINE, n_seen=0)
    assert (caught.value.latest.by, caught.value.n_stored) == ("B", 1)
    assert (folder.folder / CORRECTIONS_FILE).read_bytes() == before
    assert submit_correction(folder, MINE, n_seen=caught.value.n_stored) == 2
    assert [entry.by for entry in current(folder)] == ["B", "A"]


def test_a_correction_sent_again_has_not_seen_later_ones(folder) -> None:
    submit_correction(folder, MINE, n_seen=0)
    submit_correction(folder, THEIRS, n_seen=1)
    assert submit_correction(folder, MINE, n_seen=0) == 1


def test_only_one_of_several_people_at_once_succeeds(folder) -> None:
    rows = [replace(MINE, by=f"reader {place}") for place in range(6)]
    with ThreadPoolExecutor(6) as pool:
        done = [pool.submit(submit_correction, folder, row, n_seen=0) for row in rows]
    overtaken = [one for one in done if isinstance(one.exception(), CorrectionConflictError)]
    assert len(overtaken) == 5
    assert len(current(folder)) == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image_id": "unknown"}, OutdatedCorrectionError, "no image"),
        ({"place": "90000 1 5 5"}, OutdatedCorrectionError, "lies elsewhere"),
        ({"labels": "normal+cgn"}, PredictionsError, "exclude each other"),
        ({"labels": "tumour"}, TaxonomyError, "unknown label"),
        ({"by": " "}, PredictionsError, "name"),
        ({"time": "now"}, PredictionsError, "'now'"),
    ],
)
def test_an_invalid_submission_is_refused_and_not_written(folder, change, error, message) -> None:
    with pytest.raises(error, match=message):
        submit_correction(folder, replace(MINE, **change), n_seen=0)
    assert not (folder.folder / CORRECTIONS_FILE).exists()
