import re

from glomerulab.apps.annotation.store.accounts import check_password
from glomerulab.apps.annotation.store.annotations import list_items
from glomerulab.apps.annotation.store.study import read_study
from tests.support.annotation_studies import save


def test_the_overview_shows_how_far_everyone_is(web):
    save(web.store, "anna", "glom_000")
    page = web.client("owner").get("/study").text
    assert re.search(r"Anna</td>.*?1 / 6", page)
    assert re.search(r"Bo</td>.*?0 / 6", page)


def test_a_new_annotator_gets_a_password_that_is_shown_once(web):
    owner = web.client("owner")
    form = {"name": "Carla", "login": "carla", "role": "annotator"}
    answer = owner.write("/study/people", data=form)
    password = re.search(r'id="new-password">([^<]+)<', answer.text).group(1)
    assert check_password(web.store, login="carla", password=password).role == "annotator"
    assert password not in owner.get("/study/people").text
    assert owner.write("/study/people", data=form).status_code == 422


def test_a_renewed_password_replaces_the_old_one_and_ends_sessions(web):
    owner, anna = web.client("owner"), web.client("anna")
    answer = owner.write("/study/people/anna/password")
    password = re.search(r'id="new-password">([^<]+)<', answer.text).group(1)
    assert check_password(web.store, login="anna", password=password)
    assert anna.get("/api/items").status_code == 401


def test_someone_shut_out_may_come_back(web):
    owner, bo = web.client("owner"), web.client("bo")
    owner.write("/study/people/bo/active", data={"active": "false"})
    assert bo.get("/api/items").status_code == 401
    owner.write("/study/people/bo/active", data={"active": "true"})
    assert web.client("bo").get("/api/items").status_code == 200


def test_the_design_changes_and_new_readers_get_their_images(web):
    owner = web.client("owner")
    form = {
        "name": "Renamed",
        "n_readers": "3",
        "repeat_percent": "0",
        "seed": "5",
        "show_model": "true",
    }
    assert "saved" in owner.write("/study/design", data=form).text
    settings = read_study(web.store).settings
    assert (settings.name, settings.n_readers, settings.show_model, settings.show_others) == (
        "Renamed",
        3,
        True,
        False,
    )
    owner.write("/study/people", data={"name": "Carla", "login": "carla", "role": "annotator"})
    assert "6 images" in owner.write("/study/distribute").text
    assert len(list_items(web.store, "carla")) == 6


def test_the_table_alone_is_given_for_refreshing(web):
    answer = web.client("owner").get("/study/progress", headers={"HX-Request": "true"})
    assert answer.text.lstrip().startswith("<div")
