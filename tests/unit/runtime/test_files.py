import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glomerulab.apps.annotation.store.accounts import create_account
from glomerulab.apps.annotation.store.database import open_store
from glomerulab.cases.corrections import CorrectionRow, append_rows
from glomerulab.errors import ManifestError, OutputError
from glomerulab.runtime.files import (
    atomic_write,
    exclusive_lock,
    is_running,
    make_folder,
    partial_folder,
    read_content,
    remove_partial_files,
    stated_path,
)
from glomerulab.runtime.resume import JsonLines


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    with atomic_write(target) as temporary:
        temporary.write_text("a,b\n")
        assert not target.exists()
    assert target.read_text() == "a,b\n"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError):
        _write_half_and_fail(target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_name_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "slide.ome.tiff") as temporary:
        temporary.touch()
        assert temporary.suffix == ".tiff"


def test_a_missing_folder_is_an_output_error_that_names_the_path(tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "a.csv"
    with pytest.raises(OutputError) as caught:
        _write(target, "x")
    assert caught.value.where == str(target)


def test_a_file_where_a_folder_should_be_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError) as caught:
        make_folder(tmp_path / "out")
    assert caught.value.where == str(tmp_path / "out")


def test_leftovers_of_a_killed_run_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".crop.partial-12ab.png").touch()
    (tmp_path / "deep" / "crop.png").touch()
    assert remove_partial_files(tmp_path) == 1
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["crop.png"]


def _killed_while_writing(target: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=_write_for_ever, args=(target,))
    child.start()
    start = f".{target.stem}.partial-"
    while not any(
        path.name.startswith(start) and path.suffix == target.suffix
        for path in target.parent.iterdir()
    ):
        time.sleep(0.01)
    child.kill()
    child.join()


def _write_for_ever(target: Path) -> None:
    with atomic_write(target) as temporary:
        temporary.write_text("half")
        time.sleep(600)


def test_the_leftover_of_a_killed_process_is_removed_and_a_living_ones_file_stays(
    tmp_path: Path,
) -> None:
    _killed_while_writing(tmp_path / "a.csv")
    with atomic_write(tmp_path / "a.csv") as temporary:
        temporary.write_text("mine")
        assert remove_partial_files(tmp_path) == 1
        assert list(tmp_path.iterdir()) == [temporary]
    assert (tmp_path / "a.csv").read_text() == "mine"


def test_the_leftovers_of_one_file_are_removed_alone(tmp_path: Path) -> None:
    for name in ("a*.csv", "ab.csv", "a*.json"):
        _killed_while_writing(tmp_path / name)
    assert remove_partial_files(tmp_path / "a*.csv") == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_the_file_of_another_machine_is_a_leftover_after_an_hour(tmp_path: Path) -> None:
    path = tmp_path / f".a.partial-{'0' * 4}-1-{'0' * 8}.csv"
    path.touch()
    assert remove_partial_files(tmp_path) == 0
    os.utime(path, (0, 0))
    assert remove_partial_files(tmp_path) == 1


def test_a_held_lock_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with exclusive_lock(lock, busy="in use"):
        with (
            pytest.raises(OutputError, match="in use") as caught,
            exclusive_lock(lock, busy="in use"),
        ):
            pass
        assert caught.value.where == str(tmp_path)
    with exclusive_lock(lock):
        pass


def test_a_lock_in_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError), exclusive_lock(tmp_path / "missing" / ".lock"):
        pass


def _write(target: Path, text: str) -> None:
    with atomic_write(target) as temporary:
        temporary.write_text(text)


def _write_half_and_fail(target: Path) -> None:
    with atomic_write(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("umask", "group", "file_mode", "folder_mode"),
    [
        (0o022, "", 0o600, 0o700),
        (0o022, "1", 0o640, 0o750),
        (0o002, "1", 0o660, 0o770),
        (0o077, "1", 0o600, 0o700),
        (0o000, "", 0o600, 0o700),
    ],
)
def test_files_and_folders_are_for_their_user_or_a_group_that_is_told(
    tmp_path, monkeypatch, umask, group, file_mode, folder_mode
) -> None:
    monkeypatch.setenv("GLOMERULAB_GROUP_ACCESS", group)
    before = os.umask(umask)
    try:
        folder = make_folder(tmp_path / "a" / "b")
        with atomic_write(folder / "written.txt") as temporary:
            temporary.write_text("x")
        append_rows(
            folder / "overrides.csv", lambda _stored: [CorrectionRow("t", "b", "i", "l", "r")]
        )
        JsonLines(folder / "lines.jsonl").append({"a": 1})
        with exclusive_lock(folder / ".lock"):  # who can open it can hold it
            pass
        with open_store(folder / "study.db", create=True) as store:
            create_account(
                store, login="anna", name="A", role="owner", password="long enough", by=None
            )
            files = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    finally:
        os.umask(before)
    assert files.keys() >= {"written.txt", "overrides.csv", "lines.jsonl", ".lock", "study.db"}
    assert set(files.values()) == {file_mode}
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent)} == {folder_mode}


def test_an_unfinished_folder_of_a_killed_process_is_removed_with_its_files(tmp_path: Path) -> None:
    folder = tmp_path / f".work.partial-{'0' * 4}-1-{'0' * 8}"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "card.json").touch()
    os.utime(folder, (0, 0))
    with partial_folder(tmp_path / "work") as own:
        (own / "card.json").touch()
        assert remove_partial_files(tmp_path) == 1
        assert list(tmp_path.iterdir()) == [own]
    assert not list(tmp_path.iterdir())


def test_a_killed_process_that_nobody_has_asked_for_does_not_run() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert is_running(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and keeps its number
    assert not is_running(process.pid)
    process.wait()
    assert not is_running(process.pid)
    assert is_running(os.getpid())


@pytest.mark.parametrize("letter", ["a", "\u00e9", "\u817e"])
def test_a_name_that_no_disk_takes_is_a_missing_file(tmp_path: Path, letter: str) -> None:
    for text in (letter * 300, f"{letter * 300}/a.png", f"a/{letter * 5000}"):
        path = stated_path(tmp_path, text)
        with pytest.raises(ManifestError):
            read_content(path, "table", error=ManifestError)


def test_a_nul_in_a_path_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such table"):
        read_content(tmp_path / "a\0b", "table", error=ManifestError)
