from pathlib import Path

import pytest

from glomerulab.errors import OutputError
from glomerulab.pipeline.normalize_progress import Record, open_progress
from glomerulab.runtime.files import size_and_mtime
from glomerulab.stain.fitting import fit
from tests.support.beer_lambert import section

TARGETS = {"HE": fit(section(1, size=96).image, "HE")}


def _record(image_id: str, original: Path) -> Record:
    return Record(image_id, "normalized", "", *size_and_mtime(original))


def test_what_was_noted_is_known_to_the_next_run(tmp_path: Path) -> None:
    original, out = tmp_path / "a.png", tmp_path / "out.png"
    original.write_bytes(b"1")
    out.write_bytes(b"2")
    open_progress(tmp_path, TARGETS, per="slide").add(_record("a", original))
    again = open_progress(tmp_path, TARGETS, per="slide")
    assert again.is_done("a", original, out)
    assert not again.is_done("b", original, out)


def test_a_changed_original_or_a_missing_result_is_not_done(tmp_path: Path) -> None:
    original, out = tmp_path / "a.png", tmp_path / "out.png"
    original.write_bytes(b"1")
    progress = open_progress(tmp_path, TARGETS, per="slide")
    progress.add(_record("a", original))
    assert not progress.is_done("a", original, out)
    out.write_bytes(b"2")
    original.write_bytes(b"12")
    assert not progress.is_done("a", original, out)


def test_a_line_torn_by_a_kill_is_dropped_and_the_next_is_whole(tmp_path: Path) -> None:
    original = tmp_path / "a.png"
    original.write_bytes(b"1")
    progress = open_progress(tmp_path, TARGETS, per="slide")
    progress.add(_record("a", original))
    with progress.path.open("a", encoding="utf-8") as file:
        file.write('{"image_id": "b", "sta')
    again = open_progress(tmp_path, TARGETS, per="slide")
    assert set(again.records) == {"a"}
    again.add(_record("c", original))
    assert set(open_progress(tmp_path, TARGETS, per="slide").records) == {"a", "c"}


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    open_progress(tmp_path, TARGETS, per="slide")
    with pytest.raises(OutputError, match="other targets"):
        open_progress(tmp_path, TARGETS, per="image")
    with pytest.raises(OutputError, match="other targets"):
        open_progress(tmp_path, TARGETS, per="slide", white=(240.0, 240.0, 240.0))


def test_a_missing_file_has_no_mark(tmp_path: Path) -> None:
    assert size_and_mtime(tmp_path / "none") == (0, 0)
