from pathlib import Path

import pytest

from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.images import (
    NewImage,
    add_images,
    find_image,
    images_of_manifest,
    list_other_columns,
)
from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import AnnotationError, NotAllowedError, UnknownRecordError
from glomerulab.geometry import Box
from tests.support.annotation_studies import OWNER, make_study

ROWS = """\
image_id,image_path,patient_id,slide_id,stain,mpp,x,y,width,height,split,normal,mspgn,fsg,cgn,ward
007,crops/007.png,NA,S-1,HE,0.25,10,-5,200,300,train,1,0,0,0,4b
008,crops/008.png,,,,,,,64,64,,,,,,
"""


@pytest.fixture
def images(tmp_path: Path) -> list[NewImage]:
    (tmp_path / "manifest.csv").write_text(ROWS)
    return images_of_manifest(read_manifest(tmp_path / "manifest.csv"))


def test_a_manifest_gives_everything_but_its_labels(images: list[NewImage]) -> None:
    known, bare = images
    assert known == NewImage(
        "007",
        "crops/007.png",
        "NA",
        "S-1",
        "HE",
        0.25,
        Box(10, -5, 200, 300),
        others={"split": "train", "ward": "4b"},
    )
    assert bare == NewImage("008", "crops/008.png", others={"width": 64, "height": 64})


def test_what_was_added_comes_back(store: Store, images: list[NewImage]) -> None:
    make_study(store, distributed=False)
    assert add_images(store, images, by=OWNER) == 2
    with store.reading() as connection:
        found = find_image(connection, "007", Path("/root"))
        others = list_other_columns(connection)
    assert found.image_path == Path("/root/crops/007.png")
    assert (found.patient_id, found.slide_id, found.stain, found.mpp) == ("NA", "S-1", "HE", 0.25)
    assert found.box == Box(10, -5, 200, 300)
    assert others["007"] == {"split": "train", "ward": "4b"}
    assert others["008"] == {"width": 64, "height": 64}


def test_adding_again_adds_nothing(store: Store, images: list[NewImage]) -> None:
    make_study(store, distributed=False)
    add_images(store, images[:1], by=OWNER)
    assert add_images(store, images, by=OWNER) == 1
    assert add_images(store, images, by=OWNER) == 0


def test_two_images_of_one_name_are_refused(store: Store) -> None:
    make_study(store, distributed=False)
    with pytest.raises(AnnotationError, match="given twice"):
        add_images(store, [NewImage("a", "a.png"), NewImage("a", "a.png")], by=OWNER)
    with pytest.raises(AnnotationError, match="another image of this name"):
        add_images(store, [NewImage("g000", "elsewhere.png")], by=OWNER)


def test_only_an_owner_adds_images(store: Store) -> None:
    make_study(store)
    with pytest.raises(NotAllowedError):
        add_images(store, [NewImage("a", "a.png")], by="anna")
    with store.reading() as connection, pytest.raises(UnknownRecordError, match="zz"):
        find_image(connection, "zz", Path("/"))
