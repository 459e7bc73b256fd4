import csv
import json
from dataclasses import replace

from glomerulab.cases.case import build_cases
from glomerulab.cases.corrections import add_correction
from glomerulab.reports.case.csv_tables import write_images_csv
from glomerulab.reports.case.geojson import render_case_geojson


def counts(summary) -> dict[str, int]:
    return {one.label.id: one.n_with for one in summary.labels}


def test_each_patient_is_a_case_with_its_slides(folder) -> None:
    first, second = build_cases(folder)
    assert (first.patient, second.patient) == ("p1", "p/2")
    assert [slide.slide_id for slide in first.slides] == ["s1", "s2"]
    assert first.summary.n_glomeruli == 5  # g1 is on two sections


def test_counts_follow_corrections_and_the_models_counts_stay(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="A", reason="x")
    add_correction(folder, "c", labels=["not_a_glomerulus"], by="A", reason="a tubule")
    case = build_cases(folder)[0]
    assert counts(case.model_summary) == {"normal": 2, "mspgn": 1, "fsg": 1, "cgn": 1}
    assert counts(case.summary) == {"normal": 2, "mspgn": 0, "fsg": 0, "cgn": 2}
    assert (case.model_summary.n_glomeruli, case.summary.n_glomeruli) == (5, 4)
    assert (case.model_summary.n_referred, case.summary.n_referred) == (2, 0)
    c = next(i for i in case.summary.rules[1].items if i.item.id == "C")
    assert (c.n_with, c.n_of, c.grade.grade) == (2, 4, "C2")


def test_a_corrected_image_is_not_referred(folder) -> None:
    add_correction(folder, "c", labels=["fsg"], by="Dr Li", reason="it is one")
    case = build_cases(folder)[0]
    assert {one.image_id: case.review_reasons_of(one) for one in case.calls}["c"] == ()
    write_images_csv(case, folder.folder / "i.csv")
    with (folder.folder / "i.csv").open(encoding="utf-8-sig", newline="") as file:
        assert {row["image_id"]: row["refer"] for row in csv.DictReader(file)}["c"] == ""
    found = json.loads(render_case_geojson(case, case.slides[0]))["features"]
    assert {one["properties"]["name"]: "refer" in one["properties"]["metadata"] for one in found}[
        "c"
    ] is False


def test_outdated_corrections_belong_to_the_case_of_their_slide(folder) -> None:
    gone = "".join(
        f"2026-01-01T00:00:00+00:00,Dr Li,{image},cgn,seen,1 2 3 4\n"
        for image in ("s1__g7", "s9__g1", "unknown")
    )
    (folder.folder / "overrides.csv").write_text(
        f"time,by,image_id,labels,reason,place\n{gone}", encoding="utf-8"
    )
    first, second = build_cases(folder)
    assert [one.row.image_id for one in first.outdated] == ["s1__g7"]
    assert [one.row.image_id for one in second.outdated] == ["s9__g1"]
    assert [one.row.image_id for one in first.unmatched] == ["unknown"]
    assert first.latest_corrections == {}


def test_a_correction_of_a_region_that_moved_is_outdated(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="A", reason="x")
    calls = tuple(
        replace(one, box=replace(one.box, y=one.box.y + 900)) if one.image_id == "b" else one
        for one in folder.calls
    )
    case = build_cases(replace(folder, calls=calls))[0]
    assert counts(case.summary) == counts(case.model_summary)
    assert [one.why for one in case.outdated] == ["moved"]


def test_images_of_one_glomerulus_have_one_number(folder) -> None:
    numbers = build_cases(folder)[0].glomerulus_numbers
    assert numbers == {"a1": 1, "a2": 1, "b": 2, "c": 3, "d": 4, '<i>"e"</i> & 名': 5}


def test_last_modified_is_the_time_of_the_latest_correction(folder) -> None:
    assert build_cases(folder)[0].last_modified.isoformat() == "2026-11-24T20:00:00+00:00"
    first = add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="seen")
    case, other = build_cases(folder)
    assert case.last_modified.isoformat() == first.time
    assert other.last_modified.isoformat() == "2026-11-24T20:00:00+00:00"
    unreadable = replace(case.corrections[0], time="yesterday")
    assert (
        replace(case, corrections=(unreadable,)).last_modified.isoformat()
        == "2026-11-24T20:00:00+00:00"
    )


def test_an_image_has_its_glomerulus_and_the_other_slides_of_it(folder) -> None:
    first = build_cases(folder)[0]
    a1, _, b = first.calls[:3]
    assert (first.other_slides_of(a1), first.other_slides_of(b)) == (("s2",), ())
    assert first.glomerulus_of(a1).labels == frozenset({"cgn"})
