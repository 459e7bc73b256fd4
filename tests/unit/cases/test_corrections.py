from dataclasses import replace
from pathlib import Path

from glomerulab.cases.add_corrections import (
    add_override,
)
from glomerulab.cases.corrections import OVERRIDES_FILE, lost_overrides, read_overrides


def test_entries_come_back_with_name_time_and_reason(folder) -> None:
    add_override(
        folder, "b", labels=["cgn", "Segmental sclerosis"], by="Dr Li", reason='"sure"\nso'
    )
    entry = read_overrides(folder)[0]
    assert entry.reading == {"cgn", "fsg"}
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


def test_entries_of_images_that_are_gone_are_told_and_stay_in_the_file(folder) -> None:
    add_override(folder, "b", labels=["cgn"], by="A", reason="x")
    add_override(folder, "c", labels=["fsg"], by="A", reason="y")
    before = (folder.folder / OVERRIDES_FILE).read_bytes()
    anew = replace(folder, calls=tuple(one for one in folder.calls if one.image_id != "b"))
    assert [entry.image_id for entry in read_overrides(anew)] == ["c"]
    (lost,) = lost_overrides(anew)
    assert (lost.row.image_id, lost.row.reason, lost.why) == ("b", "x", "no_image")
    add_override(anew, "c", labels=["cgn"], by="B", reason="z")
    assert (folder.folder / OVERRIDES_FILE).read_bytes().startswith(before)
    assert lost_overrides(folder) == ()  # the first predictions again: it counts again


def test_a_word_on_one_region_is_not_taken_for_one_on_another_of_its_name(folder) -> None:
    add_override(folder, "b", labels=["cgn"], by="A", reason="x")
    assert read_overrides(_moved(folder, "b", 3)) == read_overrides(folder)  # drawn a little better
    anew = _moved(folder, "b", 500)
    assert read_overrides(anew) == ()
    assert [one.why for one in lost_overrides(anew)] == ["moved"]
    add_override(anew, "b", labels=["fsg"], by="B", reason="the other one")
    assert [entry.by for entry in read_overrides(anew)] == ["B"]


def test_an_earlier_word_does_not_come_back_when_a_later_one_no_longer_applies(folder) -> None:
    path: Path = folder.folder / OVERRIDES_FILE
    path.write_text(
        "time,by,image_id,labels,reason\n2026-01-01T00:00:00+00:00,A,b,cgn,x\n2026-01-02T00:00:00+00:00,B,b,tumour,y\n"
    )
    assert read_overrides(folder) == ()
    assert [one.why for one in lost_overrides(folder)] == ["superseded", "other_labels"]
