from dataclasses import replace
from pathlib import Path

from glomerulab.cases.add_corrections import (
    add_correction,
)
from glomerulab.cases.corrections import CORRECTIONS_FILE, outdated_corrections, read_corrections


def test_entries_come_back_with_name_time_and_reason(folder) -> None:
    add_correction(
        folder, "b", labels=["cgn", "Segmental sclerosis"], by="Dr Li", reason='"sure"\nso'
    )
    entry = read_corrections(folder)[0]
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
    add_correction(folder, "b", labels=["cgn"], by="A", reason="x")
    add_correction(folder, "c", labels=["fsg"], by="A", reason="y")
    before = (folder.folder / CORRECTIONS_FILE).read_bytes()
    anew = replace(folder, calls=tuple(one for one in folder.calls if one.image_id != "b"))
    assert [entry.image_id for entry in read_corrections(anew)] == ["c"]
    (lost,) = outdated_corrections(anew)
    assert (lost.row.image_id, lost.row.reason, lost.why) == ("b", "x", "no_image")
    add_correction(anew, "c", labels=["cgn"], by="B", reason="z")
    assert (folder.folder / CORRECTIONS_FILE).read_bytes().startswith(before)
    assert outdated_corrections(folder) == ()  # the first predictions again: it counts again


def test_a_word_on_one_region_is_not_taken_for_one_on_another_of_its_name(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="A", reason="x")
    assert read_corrections(_moved(folder, "b", 3)) == read_corrections(
        folder
    )  # drawn a little better
    anew = _moved(folder, "b", 500)
    assert read_corrections(anew) == ()
    assert [one.why for one in outdated_corrections(anew)] == ["moved"]
    add_correction(anew, "b", labels=["fsg"], by="B", reason="the other one")
    assert [entry.by for entry in read_corrections(anew)] == ["B"]


def test_an_earlier_word_does_not_come_back_when_a_later_one_no_longer_applies(folder) -> None:
    path: Path = folder.folder / CORRECTIONS_FILE
    path.write_text(
        "time,by,image_id,labels,reason\n2026-01-01T00:00:00+00:00,A,b,cgn,x\n2026-01-02T00:00:00+00:00,B,b,tumour,y\n"
    )
    assert read_corrections(folder) == ()
    assert [one.why for one in outdated_corrections(folder)] == ["superseded", "other_labels"]
