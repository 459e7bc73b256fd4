import pytest

from glomerulab.cohort.slides_table import read_slides
from glomerulab.errors import ManifestError


def test_a_table_has_patient_and_stain(tmp_path):
    (tmp_path / "slides.csv").write_text(
        "slide_path,slide_id,patient_id,stain,mpp\na/b.svs,,P1,PAS,0.25\nc.svs,C,,,\n"
    )
    first, second = read_slides(tmp_path / "slides.csv")
    assert (first.path, first.slide_id) == (tmp_path / "a" / "b.svs", "b")
    assert (first.patient_id, first.stain, first.mpp) == ("P1", "PAS", 0.25)
    assert (second.slide_id, second.patient_id, second.stain, second.mpp) == ("C", None, None, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name\na.svs\n", "slide_path"),
        ("slide_path\n", "no rows"),
        ("slide_path,mpp\n,1\n", "line 2: slide_path is empty"),
        ("slide_path,mpp\na.svs,0.5\nb.svs,fast\n", "line 3: mpp .*'fast'"),
        ("slide_path,mpp\na.svs,-1\n", "line 2: mpp"),
        ("slide_path,stain\na.svs,Giemsa\n", "line 2: unknown stain 'Giemsa'"),
        ("slide_path\na.svs,b\n", "line 2"),
        ("slide_path\nx/a.svs\ny/a.svs\n", "same slide id 'a'"),
    ],
)
def test_a_malformed_table_is_named_by_line(tmp_path, text, reason):
    (tmp_path / "slides.csv").write_text(text)
    with pytest.raises(ManifestError, match=reason) as caught:
        read_slides(tmp_path / "slides.csv")
    assert caught.value.where == str(tmp_path / "slides.csv")


def test_a_slide_is_also_known_by_its_file_unless_another_has_the_name(tmp_path):
    (tmp_path / "s.csv").write_text("slide_path,slide_id\na/1.tif,A\nb/1.tif,B\nc/2.tif,C\n")
    assert [one.other_names for one in read_slides(tmp_path / "s.csv")] == [
        (),
        (),
        ("2", "2.tif"),
    ]


def test_a_missing_table_is_an_error(tmp_path):
    with pytest.raises(ManifestError, match="no such slides table"):
        read_slides(tmp_path / "slides.csv")


def test_a_folder_is_read_as_slides_without_patients(tmp_path):
    for name in ("b.svs", "a.svs"):
        (tmp_path / name).write_text("x")
    assert [(entry.slide_id, entry.patient_id) for entry in read_slides(tmp_path)] == [
        ("a", None),
        ("b", None),
    ]


def test_further_columns_are_kept_in_their_order(tmp_path):
    (tmp_path / "slides.csv").write_text(
        "slide_path,scanner,patient_id,site\na.svs,AT2,P1,north\nb.svs,,P2\n"
    )
    first, second = read_slides(tmp_path / "slides.csv")
    assert first.further == (("scanner", "AT2"), ("site", "north"))
    assert second.further == (("scanner", ""), ("site", ""))


def test_blanks_in_the_header_and_a_comma_at_its_end_lose_nothing(tmp_path):
    (tmp_path / "slides.csv").write_bytes(
        "slide_path, patient_id ,scanner,\r\na.svs,P1,AT2,\r\n".encode("utf-8-sig")
    )
    (entry,) = read_slides(tmp_path / "slides.csv")
    assert entry.patient_id == "P1"
    assert entry.further == (("scanner", "AT2"),)


def test_a_column_given_twice_is_refused(tmp_path):
    (tmp_path / "slides.csv").write_text("slide_path,stain,stain\na.svs,HE,PAS\n")
    with pytest.raises(ManifestError, match="'stain'"):
        read_slides(tmp_path / "slides.csv")


def test_a_dicom_folder_keeps_its_full_name_in_a_table_too(tmp_path):
    for name in ("case.1", "case.2"):
        (tmp_path / name).mkdir()
    (tmp_path / "slides.csv").write_text("slide_path\ncase.1\ncase.2\n")
    assert [entry.slide_id for entry in read_slides(tmp_path / "slides.csv")] == [
        "case.1",
        "case.2",
    ]
