from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.apps.serve.files import SlideFolder
from glomerulab.errors import NotAllowedError, UnknownRecordError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "slides-of-others").mkdir()
    (tmp_path / "slides-of-others" / "a.tif").write_text("x")
    root = tmp_path / "slides"
    (root / "肾 case").mkdir(parents=True)
    (root / "肾 case" / "a.tif").write_text("x")
    return root


def test_a_slide_is_found_by_its_name_below_the_folder(root):
    assert SlideFolder(root).find("肾 case/a.tif") == root / "肾 case" / "a.tif"
    assert SlideFolder(root).find("./肾 case//a.tif") == root / "肾 case" / "a.tif"
    with pytest.raises(UnknownRecordError, match=r"b\.tif"):
        SlideFolder(root).find("肾 case/b.tif")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "肾 case/../../secret.txt",
        "/etc/passwd",
        "",
        "..",
        "./..",
        "a\0b",
        "..\\secret.txt",
        "肾 case/..",
        "//etc/passwd",
        "../slides-of-others/a.tif",
        "a" * 2000,
        "~/../secret.txt",
        "a\n.tif",
    ],
)
def test_a_name_that_leaves_the_folder_is_rejected(root, name):
    with pytest.raises(NotAllowedError):
        SlideFolder(root).find(name)


@pytest.mark.parametrize("name", ["a" * 300, "肾" * 100, "a/" + "b" * 256 + "/c.tif", "a/" * 500])
def test_a_name_that_no_file_system_takes_is_unknown(root, name):
    with pytest.raises(UnknownRecordError):
        SlideFolder(root).find(name)


@settings(max_examples=60)
@given(st.text(max_size=60))
def test_no_name_leaves_the_folder(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "any-root"
    root.mkdir(exist_ok=True)
    try:
        place = SlideFolder(root).find(name)
    except (NotAllowedError, UnknownRecordError):
        return
    assert root.resolve() in {place, *place.parents}


def test_links_that_lead_out_are_refused_also_within_a_folder_that_is_named(root):
    (root / "out.txt").symlink_to(root.parent / "secret.txt")
    (root / "outside").symlink_to(root.parent)
    (root / "dicom").mkdir()
    (root / "dicom" / "1.dcm").symlink_to(root.parent / "secret.txt")
    (root / "loop").symlink_to(root / "loop")
    for name in ("out.txt", "outside", "outside/secret.txt", "dicom", "loop"):
        with pytest.raises((NotAllowedError, UnknownRecordError)):
            SlideFolder(root).find(name)


def test_a_link_within_the_folder_is_followed(root):
    (root / "other.tif").symlink_to(root / "肾 case" / "a.tif")
    assert SlideFolder(root).find("other.tif") == root / "肾 case" / "a.tif"


def test_a_folder_that_is_a_link_itself_may_be_the_root(root):
    link = root.parent / "link"
    Path(link).symlink_to(root)
    assert SlideFolder(link).find("肾 case/a.tif") == root / "肾 case" / "a.tif"


def test_the_folder_itself_may_be_named_unless_a_link_in_it_leads_out(root):
    for name in (".", "./", "./."):
        assert SlideFolder(root).find(name) == root
    (root / "outside").symlink_to(root.parent)
    with pytest.raises(NotAllowedError, match="leaves the slides folder"):
        SlideFolder(root).find(".")


def test_files_are_listed_by_what_a_job_can_use(tmp_path):
    for name in ("b.svs", "sub/a.TIF", "a.geojson", "notes.txt", ".hidden/c.svs", "d1/1.dcm"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "secret.svs").touch()
    (tmp_path / "in" / "link.svs").symlink_to(tmp_path / "secret.svs")
    slides, regions = SlideFolder(tmp_path / "in").names()
    assert slides == ["b.svs", "d1", "sub/a.TIF"]
    assert regions == [".", "a.geojson"]
