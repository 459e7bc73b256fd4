import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from glomerulab.errors import OutputError
from glomerulab.runtime.resume import (
    JsonLines,
    SettingsFile,
    changed_settings,
    describe_changes,
    folder_lock,
)


def test_a_new_folder_records_its_settings(tmp_path: Path) -> None:
    file = SettingsFile(tmp_path / "step.json")
    assert not file.continue_or_refuse({"mpp": 0.5})
    assert file.path.read_text(encoding="utf-8") == '{\n "mpp": 0.5\n}'
    assert file.read() == {"mpp": 0.5}


def test_the_same_settings_continue(tmp_path: Path) -> None:
    file = SettingsFile(tmp_path / "step.json", dump=partial(json.dumps, indent=2))
    settings = {"white": (255.0, 255.0, 250.0), "targets": {"HE": {"angle": 0.1}}}
    assert not file.continue_or_refuse(settings)
    written = file.path.read_bytes()
    assert file.continue_or_refuse(settings)
    assert file.path.read_bytes() == written


def test_other_settings_are_refused_each_by_name(tmp_path: Path) -> None:
    file = SettingsFile(tmp_path / "step.json")
    file.continue_or_refuse({"mpp": 0.5, "head": {"kind": "softmax"}})
    with pytest.raises(OutputError) as caught:
        file.continue_or_refuse(
            {"mpp": 0.25, "head": {"kind": "sigmoid"}}, way_out="choose another --out"
        )
    assert caught.value.where == str(tmp_path)
    for part in ("mpp 0.5 then, 0.25 now", "head.kind 'softmax' then", "choose another --out"):
        assert part in caught.value.message
    assert file.read() == {"mpp": 0.5, "head": {"kind": "softmax"}}


def test_a_setting_of_a_later_version_takes_its_default(tmp_path: Path) -> None:
    file = SettingsFile(tmp_path / "step.json")
    file.write({"seed": 0})
    assert file.continue_or_refuse({"seed": 0, "tta": False}, defaults={"tta": False})
    with pytest.raises(OutputError, match="tta"):
        file.continue_or_refuse({"seed": 0, "tta": True}, defaults={"tta": False})


def test_settings_in_another_text_format(tmp_path: Path) -> None:
    (tmp_path / "seed.txt").write_text("3\n", encoding="utf-8")
    file = SettingsFile(
        tmp_path / "seed.txt",
        load=lambda text: {"seed": int(text)},
        dump=lambda settings: f"{settings['seed']}\n",
    )
    assert file.continue_or_refuse({"seed": 3})
    with pytest.raises(OutputError, match="seed 3 then, 4 now"):
        file.continue_or_refuse({"seed": 4})


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_damaged_settings_are_refused(tmp_path: Path, text: str) -> None:
    file = SettingsFile(tmp_path / "step.json")
    file.path.write_text(text, encoding="utf-8")
    with pytest.raises(OutputError, match=r"step\.json"):
        file.continue_or_refuse({"mpp": 0.5})


def test_ignored_settings_do_not_count() -> None:
    then = {"out": "a", "optimizer": {"rate": 1}, "seed": 0}
    now = {"out": "b", "optimizer": {"rate": 2}, "seed": 0}
    assert changed_settings(then, now, ignore={"out", "optimizer"}) == []
    assert [one.name for one in changed_settings(then, now, ignore=("out",))] == ["optimizer.rate"]


def test_many_changes_are_summed_up() -> None:
    changes = changed_settings({}, {f"setting_{n}": n for n in range(8)})
    assert describe_changes(changes).endswith("and 3 more")


def test_records_are_appended_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "done.jsonl")
    assert lines.read() == []
    lines.append({"image_id": "一"}, {"image_id": "b"})
    with lines.path.open("a", encoding="utf-8") as file:
        file.write('{"image_id": "c", "sta')
    assert [one["image_id"] for one in lines.read()] == ["一", "b"]
    lines.append({"image_id": "d"})
    assert [one["image_id"] for one in lines.read()] == ["一", "b", "d"]


def test_a_line_torn_inside_a_character_is_left_out(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "done.jsonl")
    lines.append({"image_id": "一"})
    with lines.path.open("ab") as file:
        file.write('{"image_id": "二'.encode()[:-1])
    assert [one["image_id"] for one in lines.read()] == ["一"]


def test_a_locked_folder_is_refused_until_its_process_ends(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, glomerulab.runtime.resume as resume\n"
        f"with resume.folder_lock(pathlib.Path({str(tmp_path)!r}), '.lock'):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(OutputError) as caught, folder_lock(tmp_path, ".lock"):
            pass
        assert caught.value.where == str(tmp_path)
        other.kill()
    with folder_lock(tmp_path, ".lock"):
        pass


def test_a_lock_that_cannot_be_made_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError) as caught, folder_lock(tmp_path / "file" / "out", ".lock"):
        pass
    assert caught.value.where == str(tmp_path / "file" / "out")


def _fail_in(folder: Path, *, writes: str | None = None) -> None:
    with folder_lock(folder, ".lock"):
        (folder / "crops").mkdir()
        if writes is not None:
            (folder / writes).write_text("x")
        raise ValueError("no crops")


def test_a_step_that_fails_before_it_writes_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no crops"):
        _fail_in(tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_fails_keeps_what_it_wrote(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no crops"):
        _fail_in(tmp_path / "out", writes="failures.csv")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", "failures.csv"}


def test_a_step_that_fails_keeps_an_empty_folder_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    with pytest.raises(ValueError, match="no crops"):
        _fail_in(tmp_path / "own")
    assert not (tmp_path / "own" / ".lock").exists()
