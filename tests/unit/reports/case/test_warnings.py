from dataclasses import replace

from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import CaseFolder, DetectorFacts, FailureFacts, Note
from glomerulab.cases.corrections import add_correction
from glomerulab.reports.case.warnings import case_warnings


def of_first_patient(folder: CaseFolder) -> CaseFolder:
    facts = folder.facts.model_copy(update={"slides": folder.facts.slides[:2]})
    return replace(folder, facts=facts, calls=folder.calls[:-1])


def test_severe_warnings_come_first(folder) -> None:
    found = case_warnings(build_cases(folder)[0], "en")
    assert [one.kind for one in found] == ["synthetic_model", "not_settled", "few", "one_label"]
    assert [one.is_severe for one in found] == [True, True, False, False]
    assert found[1].sentence.startswith("2 glomeruli need review. Results may change")


def test_corrections_and_notes_are_listed(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="seen")
    notes = (Note(en="Crops were judged.", zh="图像已判定。"), Note(en="English alone."))
    noted = replace(folder, facts=folder.facts.model_copy(update={"notes": notes}))
    case = build_cases(noted)[0]
    english = {one.title: one.text for one in case_warnings(case, "en")}
    assert "1 call changed by a person" in english
    chinese = [one.text for one in case_warnings(case, "zh") if one.kind == "note"]
    assert chinese == ["图像已判定。", "English alone."]


def test_confirmed_calls_are_not_counted_as_changed(folder) -> None:
    add_correction(folder, "c", labels=["fsg"], by="Dr Li", reason="sharp enough")
    (warning,) = [one for one in case_warnings(build_cases(folder)[0], "en") if one.kind == "seen"]
    assert warning.title == "1 call confirmed by a person"
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="seen")
    case = build_cases(folder)[0]
    titles = {
        language: next(one.title for one in case_warnings(case, language) if one.kind == "seen")
        for language in ("en", "zh")
    }
    assert titles == {
        "en": "1 call changed and 1 call confirmed by a person",
        "zh": "1 个判定经人工更改，1 个判定经人工确认",
    }


def test_proposed_regions_come_with_the_detectors_test_result_in_each_language(folder) -> None:
    made = DetectorFacts(
        run="d",
        weights_sha256="0" * 64,
        score_threshold=0.5,
        test_summary="Found 2 of 2.",
        test_summary_zh="检出全部。",
        trained_on_synthetic=True,
    )
    proposed = replace(
        folder,
        facts=folder.facts.model_copy(update={"detector": made}),
        calls=(replace(folder.calls[0], is_proposed=True), *folder.calls[1:]),
    )
    case = build_cases(proposed)[0]
    by_language = {
        language: next(one for one in case_warnings(case, language) if one.kind == "proposed")
        for language in ("en", "zh")
    }
    assert by_language["en"].is_severe
    assert by_language["en"].title == "1 of 6 regions were proposed by a detector"
    assert by_language["en"].text.endswith("Found 2 of 2.")
    assert by_language["zh"].text.endswith("检出全部。")
    assert "Found" not in by_language["zh"].text


def test_a_page_lists_twelve_failures_and_other_formats_all(folder) -> None:
    lost = tuple(FailureFacts(case="p1", slide_id="s1", name=f"g{place}") for place in range(20))
    case = build_cases(replace(folder, facts=folder.facts.model_copy(update={"failures": lost})))[0]
    short = next(one for one in case_warnings(case, "zh") if one.kind == "not_judged")
    long = next(
        one for one in case_warnings(case, "en", max_listed=None) if one.kind == "not_judged"
    )
    assert short.title == "20 个区域、图像或切片未能判定"
    assert short.text.count("s1 g") == 12
    assert long.text.count("s1 g") == 20


def test_outdated_corrections_are_named_in_each_language(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="seen")
    alone = of_first_patient(folder)
    anew = replace(alone, calls=tuple(one for one in alone.calls if one.image_id != "b"))
    (case,) = build_cases(anew)
    warnings = {
        language: next(one for one in case_warnings(case, language) if one.kind == "lost_changes")
        for language in ("en", "zh")
    }
    assert warnings["en"].title == "1 correction no longer applies"
    assert "b = cgn (Dr Li, " in warnings["en"].text
    assert "these predictions hold no such image" in warnings["en"].text
    assert "当前预测中没有该图像" in warnings["zh"].text
    assert warnings["zh"].is_severe


def test_a_note_on_one_case_is_in_no_other_report(folder) -> None:
    notes = (Note(en="Slide s9 is coarser.", case="p/2"), Note(en="Of all."))
    noted = replace(folder, facts=folder.facts.model_copy(update={"notes": notes}))
    warnings = {
        case.patient: [one.text for one in case_warnings(case, "en") if one.kind == "note"]
        for case in build_cases(noted)
    }
    assert warnings == {"p1": ["Of all."], "p/2": ["Slide s9 is coarser.", "Of all."]}


def test_corrections_that_match_no_case_are_counted_and_not_named(folder) -> None:
    (folder.folder / "overrides.csv").write_text(
        "time,by,image_id,labels,reason,place\n"
        "2026-01-01T00:00:00+00:00,Dr Li,s77__g1,cgn,seen,1 2 3 4\n",
        encoding="utf-8",
    )
    for case in build_cases(folder):
        for language in ("en", "zh"):
            (warning,) = [
                one for one in case_warnings(case, language) if one.kind == "lost_changes"
            ]
            assert "1" in warning.title
            assert "s77" not in warning.sentence
            assert "overrides.csv" in warning.text


def test_a_single_case_names_all_outdated_corrections(folder) -> None:
    (folder.folder / "overrides.csv").write_text(
        "time,by,image_id,labels,reason,place\n"
        "2026-01-01T00:00:00+00:00,Dr Li,s77__g1,cgn,seen,1 2 3 4\n",
        encoding="utf-8",
    )
    (case,) = build_cases(of_first_patient(folder))
    assert [one.row.image_id for one in case.outdated] == ["s77__g1"]
    assert case.unmatched == ()


def test_equal_numbers_on_several_slides_are_warned_of(folder) -> None:
    calls = tuple(
        replace(call, region_id="7") if call.image_id in {"b", "d", "z"} else call
        for call in folder.calls
    )
    first, second = build_cases(replace(folder, calls=calls))
    warnings = {
        language: [one for one in case_warnings(first, language) if one.kind == "numbered"]
        for language in ("en", "zh")
    }
    assert (
        warnings["en"][0].title == "1 region number occurs on several slides and is counted on each"
    )
    assert "Regions called 7: a bare number joins no sections" in warnings["en"][0].text
    assert "编号 7" in warnings["zh"][0].text
    assert not [one for one in case_warnings(second, "en") if one.kind == "numbered"]
