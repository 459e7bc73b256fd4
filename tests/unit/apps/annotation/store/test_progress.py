import pytest

from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.progress import own_progress, study_progress
from glomerulab.errors import NotAllowedError
from tests.support.annotation_studies import CRESCENT, NORMAL, OWNER, make_study, save


def test_progress_counts_items_and_the_time_spent_on_each(store: Store) -> None:
    make_study(store, n_images=5)
    save(store, "anna", "g000", NORMAL, seconds=2.0, unsure=True)
    save(store, "anna", "g001", NORMAL, seconds=3.0)
    save(store, "anna", "g001", CRESCENT, seconds=4.0, unsure=True)
    last = save(store, "anna", "g002", skip_reason="blurred", seconds=1.0)
    mine = own_progress(store, "anna")
    assert (mine.n_assigned, mine.n_done, mine.n_skipped, mine.n_open) == (5, 2, 1, 2)
    assert (mine.n_unsure, mine.seconds_total, mine.seconds_median) == (2, 10.0, 2.0)
    assert mine.last_saved_at == last.saved_at


def test_the_owner_sees_everyone_and_nobody_else_does(store: Store) -> None:
    make_study(store)
    save(store, "bo", "g000", NORMAL)
    progress = study_progress(store, by=OWNER)
    assert [(p.login, p.n_done, p.seconds_median) for p in progress] == [
        ("anna", 0, None),
        ("bo", 1, 2.0),
    ]
    with pytest.raises(NotAllowedError):
        study_progress(store, by="anna")
