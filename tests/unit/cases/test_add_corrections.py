from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from glomerulab.cases.add_corrections import (
    CorrectionConflictError,
    OutdatedCorrectionError,
    add_correction,
    import_corrections,
    submit_correction,
)
from glomerulab.cases.case import build_cases
from glomerulab.cases.correction_rows import CorrectionRow
from glomerulab.cases.corrections import CORRECTIONS_FILE, read_corrections
from glomerulab.errors import PredictionsError, TaxonomyError


def test_a_second_entry_leaves_the_first_where_it_was(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="A", reason="x")
    before = (folder.folder / CORRECTIONS_FILE).read_bytes()
    add_correction(folder, "b", labels=["not_a_glomerulus"], by="B", reason="y")
    assert (folder.folder / CORRECTIONS_FILE).read_bytes().startswith(before)
    assert [entry.reading for entry in read_corrections(folder)] == [{"cgn"}, None]


@pytest.mark.parametrize(
    ("image", "labels", "by", "reason", "error", "message"),
    [
        ("nobody", ["cgn"], "A", "x", PredictionsError, "no image 'nobody'"),
        ("b", ["cgn", "normal"], "A", "x", PredictionsError, "exclude each other"),
        ("b", ["tumour"], "A", "x", TaxonomyError, "unknown label"),
        ("b", [], "A", "x", PredictionsError, "no label"),
        ("b", ["cgn"], " ", "x", PredictionsError, "name"),
        ("b", ["cgn"], "A", "", PredictionsError, "reason"),
    ],
)
def test_what_says_nothing_is_refused_and_not_written(
    folder, image, labels, by, reason, error, message
) -> None:
    with pytest.raises(error, match=message):
        add_correction(folder, image, labels=labels, by=by, reason=reason)
    assert not (folder.folder / CORRECTIONS_FILE).exists()


def test_a_damaged_file_is_named_and_not_written_to(folder) -> None:
    path: Path = folder.folder / CORRECTIONS_FILE
    path.write_text("time,by,image_id,labels,reason\n2026,A,b\n")
    with pytest.raises(PredictionsError, match="entry 2"):
        add_correction(folder, "b", labels=["cgn"], by="A", reason="x")
    assert path.read_text().count("\n") == 2


HEADER = "time,by,image_id,labels,reason\n"


def _file(folder, *rows: str) -> Path:
    path: Path = folder.folder / "p1.changes.csv"
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def test_changes_of_a_page_are_added_with_their_own_times_and_only_once(folder) -> None:
    path = _file(
        folder,
        '"2099-01-02T03:04:05+00:00","Dr Li","b","cgn+fsg","both, ""sure"""',
        "2099-01-02T03:05:05+00:00,Dr Li,c,not_a_glomerulus,tubule",
    )
    done = import_corrections(folder, path)
    assert [entry.image_id for entry in done.added] == ["b", "c"]
    assert read_corrections(folder) == done.added
    assert done.added[0].reason == 'both, "sure"'
    again = import_corrections(folder, path)
    assert (again.added, len(again.known)) == ((), 2)
    assert len(read_corrections(folder)) == 2


def test_a_change_does_not_undo_what_another_person_said_later(folder) -> None:
    add_correction(folder, "b", labels=["normal"], by="Dr Wu", reason="recut")
    path = _file(
        folder, "2020-01-01T00:00:00+00:00,A,b,cgn,x", "2020-01-01T00:00:00+00:00,A,c,cgn,x"
    )
    done = import_corrections(folder, path)
    assert [entry.image_id for entry in done.added] == ["c"]
    assert [(mine.by, later.by) for mine, later in done.overtaken] == [("A", "Dr Wu")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2020-01-01T00:00:00+00:00,A,nobody,cgn,x", "no image 'nobody'"),
        ("2020-01-01T00:00:00+00:00,A,c,normal+cgn,x", "exclude each other"),
        ("2020-01-01T00:00:00+00:00,,c,cgn,x", "needs a name"),
        ("2020-01-01T00:00:00+00:00,A,c,cgn, ", "a reason"),
        ("yesterday,A,c,cgn,x", "no time: 'yesterday'"),
        ("2020-01-01T00:00:00+00:00,A,c", "not whole"),
    ],
)
def test_of_a_damaged_file_of_changes_nothing_is_added(folder, row, message) -> None:
    path = _file(folder, "2020-01-01T00:00:00+00:00,A,b,cgn,x", row)
    with pytest.raises(PredictionsError, match=message):
        import_corrections(folder, path)
    assert not (folder.folder / CORRECTIONS_FILE).exists()


def test_a_file_of_changes_made_on_other_regions_is_refused_with_the_way_out(folder) -> None:
    path = _file(folder)
    path.write_text(
        "time,by,image_id,labels,reason,place\n"
        "2020-01-01T00:00:00+00:00,A,b,cgn,x,90000 90000 50 50\n"
    )
    with pytest.raises(PredictionsError, match="lies elsewhere in these predictions; give those"):
        import_corrections(folder, path)
    assert not (folder.folder / CORRECTIONS_FILE).exists()


def test_a_file_of_changes_that_is_not_there_is_named(folder) -> None:
    with pytest.raises(PredictionsError, match="is no file"):
        import_corrections(folder, folder.folder / "nowhere.csv")


MINE = CorrectionRow("2026-01-01T00:00:00+00:00", "A", "b", "cgn", "x")
THEIRS = CorrectionRow("2026-01-01T00:00:01+00:00", "B", "b", "fsg", "y")


def test_a_change_is_added_where_nobody_came_between_and_only_once(folder) -> None:
    assert submit_correction(folder, MINE, n_seen=0) == 1
    assert submit_correction(folder, MINE, n_seen=0) == 1  # its answer was lost on the way
    assert submit_correction(folder, THEIRS, n_seen=1) == 2
    assert [entry.by for entry in read_corrections(folder)] == ["A", "B"]
    assert build_cases(folder)[0].n_corrections(folder.calls[2]) == 2


def test_a_change_does_not_go_over_one_that_its_author_has_not_seen(folder) -> None:
    submit_correction(folder, THEIRS, n_seen=0)
    before = (folder.folder / CORRECTIONS_FILE).read_bytes()
    with pytest.raises(CorrectionConflictError, match="somebody else") as caught:
        submit_correction(folder, MINE, n_seen=0)
    assert (caught.value.newest.by, caught.value.n_now) == ("B", 1)
    assert (folder.folder / CORRECTIONS_FILE).read_bytes() == before
    assert submit_correction(folder, MINE, n_seen=caught.value.n_now) == 2
    assert [entry.by for entry in read_corrections(folder)] == ["B", "A"]


def test_one_sent_again_does_not_count_as_having_seen_what_came_after_it(folder) -> None:
    submit_correction(folder, MINE, n_seen=0)
    submit_correction(folder, THEIRS, n_seen=1)
    assert submit_correction(folder, MINE, n_seen=0) == 1


def test_of_two_people_at_once_one_is_told_of_the_other(folder) -> None:
    rows = [replace(MINE, by=f"reader {place}") for place in range(6)]
    with ThreadPoolExecutor(6) as pool:
        done = [pool.submit(submit_correction, folder, row, n_seen=0) for row in rows]
    overtaken = [one for one in done if isinstance(one.exception(), CorrectionConflictError)]
    assert len(overtaken) == 5
    assert len(read_corrections(folder)) == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image_id": "nobody"}, OutdatedCorrectionError, "no image"),
        ({"place": "90000 1 5 5"}, OutdatedCorrectionError, "lies elsewhere"),
        ({"labels": "normal+cgn"}, PredictionsError, "exclude each other"),
        ({"labels": "tumour"}, TaxonomyError, "unknown label"),
        ({"by": " "}, PredictionsError, "name"),
        ({"time": "now"}, PredictionsError, "no time"),
    ],
)
def test_a_change_that_says_nothing_is_refused_and_not_written(
    folder, change, error, message
) -> None:
    with pytest.raises(error, match=message):
        submit_correction(folder, replace(MINE, **change), n_seen=0)
    assert not (folder.folder / CORRECTIONS_FILE).exists()
