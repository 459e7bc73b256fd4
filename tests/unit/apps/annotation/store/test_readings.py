import pytest

from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.readings import list_annotations, readings_by_image
from glomerulab.errors import NotAllowedError
from tests.support.annotation_studies import CRESCENT, NORMAL, OWNER, make_study, save


def test_the_owner_has_every_judgement_or_the_newest_of_each(store: Store) -> None:
    make_study(store)
    first = save(store, "anna", "g000", NORMAL)
    other = save(store, "bo", "g000", NORMAL)
    changed = save(store, "anna", "g000", CRESCENT)
    assert list_annotations(store, by=OWNER) == [other, changed]
    assert list_annotations(store, by=OWNER, every_version=True) == [first, other, changed]
    with pytest.raises(NotAllowedError):
        list_annotations(store, by="anna")


def test_skips_and_repeats_are_no_readings(store: Store) -> None:
    make_study(store, annotators=("anna",), n_readers=1, repeat_share=0.5)
    with store.reading() as connection:
        repeated = (
            connection.exec_driver_sql("SELECT image_id FROM assignment WHERE purpose = 'repeat'")
            .scalars()
            .all()
        )
    first = save(store, "anna", repeated[0], NORMAL)
    save(store, "anna", repeated[0], CRESCENT, which=1)
    save(store, "anna", repeated[1], skip_reason="torn")
    with store.reading() as connection:
        assert readings_by_image(connection) == {repeated[0]: (first,)}
