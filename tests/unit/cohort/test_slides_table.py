import pytest

from glomerulab.cohort.slides_table import read_slides
from glomerulab.errors import ManifestError


def test_a_table_tells_whose_and_how_stained(tmp_path):
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
        ("path\na.svs\n", "needs the column slide_path"),
        ("slide_path\n", "no rows"),
        ("slide_path,mpp\n,1\n", "line 2: slide_path is empty"),
        ("slide_path,mpp\na.svs,0.5\nb.svs,fast\n", "line 3: mpp 'fast'"),
        ("slide_path,mpp\na.svs,-1\n", "line 2: mpp"),
        ("slide_path,stain\na.svs,Giemsa\n", "line 2: stain 'Giemsa'"),
        ("slide_path\na.svs,b\n", "line 2 has more fields"),
        ("slide_path\nx/a.svs\ny/a.svs\n", "slide id 'a' stands for"),
    ],
)
def test_a_malformed_table_is_named_by_line(tmp_path, text, reason):
    (tmp_path / "slides.csv").write_text(text)
    with pytest.raises(ManifestError, match=reason) as caught:
        read_slides(tmp_path / "slides.csv")
    assert caught.value.where == str(tmp_path / "slides.csv")


def test_a_missing_table_is_an_error(tmp_path):
    with pytest.raises(ManifestError, match="cannot be read"):
        read_slides(tmp_path / "slides.csv")


def test_a_folder_stands_for_slides_without_patients(tmp_path):
    for name in ("b.svs", "a.svs"):
        (tmp_path / name).write_text("x")
    assert [(entry.slide_id, entry.patient_id) for entry in read_slides(tmp_path)] == [
        ("a", None),
        ("b", None),
    ]
