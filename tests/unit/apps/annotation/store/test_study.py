from dataclasses import replace
from pathlib import Path

import pytest

from glomerulab.apps.annotation.records import StudySettings
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.study import change_settings, has_study, new_study, read_study
from glomerulab.errors import AnnotationError, NotAllowedError, UnknownRecordError
from glomerulab.taxonomy import load_taxonomy
from tests.support.annotation_studies import OWNER, image_manifest, make_study


def test_a_study_comes_back_as_it_was_begun(store: Store) -> None:
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
    with pytest.raises(AnnotationError, match="holds a study already"):
        new_study(store, image_manifest(2), owner=OWNER, settings=StudySettings("second"))


def test_settings_change_from_now_on_and_only_by_an_owner(store: Store) -> None:
    make_study(store)
    shown = replace(read_study(store).settings, show_model=True)
    with pytest.raises(NotAllowedError):
        change_settings(store, shown, by="anna")
    assert change_settings(store, shown, by=OWNER).version == 2
    assert change_settings(store, shown, by=OWNER).version == 2
    assert read_study(store).settings.show_model
