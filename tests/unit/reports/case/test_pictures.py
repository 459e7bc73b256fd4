from glomerulab.cases.case import build_cases
from glomerulab.reports.case.pictures import crop_picture, slide_map
from glomerulab.reports.case.view import case_view


def test_the_outline_is_in_the_pixels_of_the_crop(folder) -> None:
    call = folder.calls[0]
    found = crop_picture(call, folder.folder)
    assert (found.width, found.height) == (96, 96)
    scale = 96 / call.box.width
    assert found.points.split()[0] == f"{10 * scale:.1f},{10 * scale:.1f}"


def test_a_missing_crop_is_replaced_by_the_reason(folder) -> None:
    (folder.folder / "crop0.png").unlink()
    found = crop_picture(folder.calls[0], folder.folder)
    assert found.uri is None
    assert found.problem == "its file is no longer there"
    (folder.folder / "crop0.png").write_bytes(b"no picture")
    assert crop_picture(folder.calls[0], folder.folder).problem == "its file cannot be read"


def test_a_map_marks_the_glomeruli_of_its_slide(folder) -> None:
    case = build_cases(folder)[0]
    drawn = slide_map(case.slides[0], case_view(case, "en").images, folder.folder)
    assert [mark.number for mark in drawn.marks] == [1, 3, 4, 6]
    assert [mark.is_referred for mark in drawn.marks] == [False, True, True, False]


def test_a_slide_without_its_map_is_left_out(folder) -> None:
    case = build_cases(folder)[0]
    (folder.folder / "s1.jpg").write_bytes(b"no picture")
    assert slide_map(case.slides[0], (), folder.folder) is None
    (folder.folder / "s1.jpg").unlink()
    assert slide_map(case.slides[0], (), folder.folder) is None
