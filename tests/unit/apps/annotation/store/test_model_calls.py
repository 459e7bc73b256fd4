import pandas as pd
import pytest

from glomerulab.apps.annotation.store.annotations import item_at
from glomerulab.apps.annotation.store.audit import verify_store
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.model_calls import set_model_calls
from glomerulab.errors import AnnotationError, NotAllowedError
from tests.support.annotation_studies import OWNER, make_study


def _predictions(*image_ids: str, cgn: float = 0.7) -> pd.DataFrame:
    rows = {"normal": 0.1, "mspgn": 0.1, "fsg": 0.1, "cgn": cgn}
    return pd.DataFrame(
        [
            {"image_id": name, **{f"probability_{k}": v for k, v in rows.items()}}
            for name in image_ids
        ]
    )


def test_the_model_is_shown_only_where_the_study_says_so(store: Store) -> None:
    make_study(store, n_images=1)
    set_model_calls(store, _predictions("g000"), source="run-1", by=OWNER)
    assert item_at(store, "anna", 1).model is None


def test_a_study_that_shows_the_model_shows_its_newest_calls(store: Store) -> None:
    make_study(store, n_images=2, show_model=True)
    set_model_calls(store, _predictions("g000", "g001"), source="run-1", by=OWNER)
    newest = _predictions("g000", "elsewhere", cgn=0.9)
    assert set_model_calls(store, newest, source="run-2", by=OWNER) == 1
    items = {item.image.image_id: item for item in (item_at(store, "anna", n) for n in (1, 2))}
    assert items["g000"].model == {"normal": 0.1, "mspgn": 0.1, "fsg": 0.1, "cgn": 0.9}
    assert items["g001"].model is None


def test_predictions_of_other_images_and_of_an_annotator_are_refused(store: Store) -> None:
    make_study(store)
    with pytest.raises(AnnotationError, match="no image of the study"):
        set_model_calls(store, _predictions("elsewhere"), source="run", by=OWNER)
    with pytest.raises(NotAllowedError):
        set_model_calls(store, _predictions("g000"), source="run", by="anna")


def test_a_probability_that_was_changed_later_is_found(store: Store) -> None:
    make_study(store)
    set_model_calls(store, _predictions("g000"), source="run", by=OWNER)
    assert verify_store(store).problems == ()
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE model_call SET probability = 0.2")
    assert "model's probabilities" in verify_store(store).problems[0]
