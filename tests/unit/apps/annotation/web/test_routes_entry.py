import pytest

from glomerulab.apps.annotation.store.accounts import check_password, list_accounts
from glomerulab.apps.annotation.store.database import open_store
from glomerulab.apps.annotation.store.study import read_study
from glomerulab.apps.annotation.web.app import create_app
from glomerulab.apps.annotation.web.site import Site, SiteSettings
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from tests.support.annotation_studies import PASSWORD
from tests.support.annotation_web import HOSTS, Browser, write_images

FORM = {
    "token": "secret",
    "name": "Olga",
    "login": "olga",
    "password": PASSWORD,
    "study": "Mesangium",
    "n_readers": "3",
    "repeat_percent": "20",
}


@pytest.fixture
def fresh(tmp_path):
    """A client of a server whose database is empty."""
    with open_store(tmp_path / "new.db", create=True) as store:
        site = Site(
            store, SlideCache(), SiteSettings(hosts=HOSTS), write_images(tmp_path, 3), "secret"
        )
        client = Browser(create_app(site), follow_redirects=False)
        client.token = client.get("/api/entry").json()["csrf_token"]
        yield store, client


def test_the_first_start_creates_owner_and_study(fresh):
    store, client = fresh
    assert client.get("/setup?token=secret").status_code == 200
    answer = client.write("/setup", data=FORM)
    assert (answer.status_code, answer.headers["location"]) == (303, "/study/people")
    settings = read_study(store).settings
    assert (settings.name, settings.n_readers, settings.repeat_share) == ("Mesangium", 3, 0.2)
    assert client.get("/study").status_code == 200


def test_the_set_up_needs_the_token_of_the_terminal(fresh):
    store, client = fresh
    assert client.get("/setup?token=guess").status_code == 403
    assert client.write("/setup", data=FORM | {"token": "guess"}).status_code == 403
    assert list_accounts(store) == []
    assert "terminal" in client.get("/login").text


def test_an_invalid_set_up_is_an_error_and_may_be_sent_again(fresh):
    _, client = fresh
    answer = client.write("/setup", data=FORM | {"study": " "})
    assert answer.status_code == 422
    assert "needs a name" in answer.text
    assert client.write("/setup", data=FORM).status_code == 303
    assert client.write("/setup", data=FORM).status_code == 403


def test_the_log_in_form_leads_to_the_own_work(web):
    for login, home in (("anna", "/label"), ("owner", "/study")):
        client = web.client()
        client.log_in(login)
        assert client.get("/").headers["location"] == home


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil", "javascript:x"]
)
def test_a_log_in_leads_to_this_server_only(web, target):
    client = web.client()
    client.token = client.get("/api/entry").json()["csrf_token"]
    form = {"login": "anna", "password": PASSWORD, "next": target}
    assert client.write("/login", data=form).headers["location"] == "/"


def test_wrong_passwords_are_rejected_and_the_sixth_try_has_to_wait(web):
    client = web.client()
    client.token = client.get("/api/entry").json()["csrf_token"]
    form = {"login": "anna", "password": "wrong password"}
    for _ in range(5):
        assert client.write("/login", data=form).status_code == 403
    answer = client.write("/login", data=form | {"password": PASSWORD})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 301


def test_a_new_password_ends_every_other_session(web):
    here, elsewhere = web.client("anna"), web.client("anna")
    form = {"old": PASSWORD, "new": "another long password"}
    assert here.write("/account", data=form | {"old": "wrong"}).status_code == 403
    assert here.write("/account", data=form).status_code == 303
    assert elsewhere.get("/api/items").status_code == 401
    assert here.get("/api/items").status_code == 200
    assert check_password(web.store, login="anna", password="another long password")


def test_only_known_languages_are_remembered(web):
    client = web.client("anna")
    assert "set-cookie" not in client.write("/language", data={"language": "xx"}).headers
    assert "zh" in client.write("/language", data={"language": "zh"}).headers["set-cookie"]
