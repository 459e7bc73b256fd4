from dataclasses import replace
from pathlib import Path

import pytest

from glomerulab.apps.annotation.records import NewImage, StudySettings
from glomerulab.apps.annotation.store.adjudications import list_image_readings
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.study import (
    add_images,
    change_settings,
    create_study,
    get_image,
    has_study,
    images_from_manifest,
    read_study,
)
from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import AnnotationError, NotAllowedError, UnknownRecordError
from glomerulab.geometry import Box
from glomerulab.taxonomy import load_taxonomy
from tests.support.annotation_studies import OWNER, image_manifest, make_study


def test_a_study_is_read_back_as_it_was_created(store: Store) -> None:
    assert not has_study(store)
    with pytest.raises(UnknownRecordError, match="annotate create"):
        read_study(store)
    make_study(store, name="IgA 研究", n_readers=3, seed=7, distributed=False)
    study = read_study(store)
    assert has_study(store)
    assert study.settings == StudySettings("IgA 研究", n_readers=3, repeat_share=0.0, seed=7)
    assert study.taxonomy == load_taxonomy("paper")
    assert study.image_root == Path("/images")


def test_a_database_holds_one_study(store: Store) -> None:
    make_study(store)
    with pytest.raises(AnnotationError, match="study already"):
        create_study(store, image_manifest(2), owner=OWNER, settings=StudySettings("second"))


def test_only_an_owner_changes_the_settings(store: Store) -> None:
    make_study(store)
    shown = replace(read_study(store).settings, show_model=True)
    with pytest.raises(NotAllowedError):
        change_settings(store, shown, by="anna")
    assert change_settings(store, shown, by=OWNER).version == 2
    assert change_settings(store, shown, by=OWNER).version == 2
    assert read_study(store).settings.show_model


ROWS = """\
image_id,image_path,patient_id,slide_id,stain,mpp,x,y,width,height,split,normal,mspgn,fsg,cgn,ward
007,crops/007.png,NA,S-1,HE,0.25,10,-5,200,300,train,1,0,0,0,4b
008,crops/008.png,,,,,,,64,64,,,,,,
"""


@pytest.fixture
def images(tmp_path: Path) -> list[NewImage]:
    (tmp_path / "manifest.csv").write_text(ROWS)
    return images_from_manifest(read_manifest(tmp_path / "manifest.csv"))


def test_images_of_a_manifest_have_every_column_but_the_labels(images: list[NewImage]) -> None:
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


def test_added_images_are_read_back(store: Store, images: list[NewImage]) -> None:
    make_study(store, distributed=False)
    assert add_images(store, images, by=OWNER) == 2
    with store.reading() as connection:
        found = get_image(connection, "007", Path("/root"))
    assert found.image_path == Path("/root/crops/007.png")
    assert (found.patient_id, found.slide_id, found.stain, found.mpp) == ("NA", "S-1", "HE", 0.25)
    assert found.box == Box(10, -5, 200, 300)
    others = {one.image.image_id: one.others for one in list_image_readings(store, by=OWNER)}
    assert others["007"] == {"split": "train", "ward": "4b"}
    assert others["008"] == {"width": 64, "height": 64}


def test_adding_again_adds_nothing(store: Store, images: list[NewImage]) -> None:
    make_study(store, distributed=False)
    add_images(store, images[:1], by=OWNER)
    assert add_images(store, images, by=OWNER) == 1
    assert add_images(store, images, by=OWNER) == 0


def test_two_images_with_one_id_are_rejected(store: Store) -> None:
    make_study(store, distributed=False)
    with pytest.raises(AnnotationError, match="'a' is given twice"):
        add_images(store, [NewImage("a", "a.png"), NewImage("a", "a.png")], by=OWNER)
    with pytest.raises(AnnotationError, match="g000"):
        add_images(store, [NewImage("g000", "elsewhere.png")], by=OWNER)


def test_only_an_owner_adds_images(store: Store) -> None:
    make_study(store)
    with pytest.raises(NotAllowedError):
        add_images(store, [NewImage("a", "a.png")], by="anna")
    with store.reading() as connection, pytest.raises(UnknownRecordError, match="zz"):
        get_image(connection, "zz", Path("/"))
