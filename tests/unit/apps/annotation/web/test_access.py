import pytest

from glomerulab.apps.annotation.store.accounts import set_active
from glomerulab.apps.annotation.web.access import LOGIN_FORM_COOKIE, SESSION_COOKIE
from tests.support.annotation_studies import OWNER, PASSWORD

WRITES = [
    "/api/annotations",
    "/logout",
    "/language",
    "/account",
    "/study/people",
    "/study/design",
    "/study/distribute",
    "/study/people/anna/password",
    "/study/people/anna/active",
    "/api/slides/0123456789abcdef/regions",
    "/slides/0123456789abcdef/import",
    "/slides/0123456789abcdef/queue",
    "/login",
    "/api/session",
    "/api/shapes",
    "/setup",
]
OWNERS_PAGES = ["/study", "/study/progress", "/study/people"]


def test_the_cookie_cannot_be_read_by_scripts_or_sent_by_other_sites(web):
    client = web.client()
    client.token = client.get("/api/entry").json()["csrf_token"]
    answer = client.write("/api/session", json={"login": OWNER, "password": PASSWORD})
    cookies = [c for c in answer.headers.get_list("set-cookie") if c.startswith(SESSION_COOKIE)]
    assert len(cookies) == 1
    assert "HttpOnly" in cookies[0]
    assert "SameSite=strict" in cookies[0]


def test_every_page_needs_a_session(web):
    client = web.client()
    for path in ["/label", "/api/items", "/items/1/image", "/slides", *OWNERS_PAGES]:
        answer = client.get(path)
        assert answer.status_code in {303, 401}, path
        assert "glom_" not in answer.text


def test_an_annotator_does_not_see_the_owners_pages(web):
    client = web.client("anna")
    assert {client.get(path).status_code for path in OWNERS_PAGES} == {403}


@pytest.mark.parametrize("token", [None, "", "wrong"])
def test_every_write_needs_its_token(web, token):
    client = web.client("owner")
    headers = {} if token is None else {"X-CSRF-Token": token}
    statuses = {path: client.post(path, headers=headers).status_code for path in WRITES}
    assert statuses == dict.fromkeys(WRITES, 403)


def test_the_token_of_another_session_is_rejected(web):
    client, other = web.client("anna"), web.client("bo")
    client.token = other.token
    answer = client.save(client.get("/api/items/1").json())
    # The page asks for a log-in at this, and keeps what waits to be saved.
    assert (answer.status_code, answer.json()["reason"]) == (403, "out-of-date")


def test_every_write_of_the_application_is_in_the_list_above(web):
    paths = {
        path.replace("{key}", "0123456789abcdef").replace("{login}", "anna")
        for path, methods in web.app.openapi()["paths"].items()
        if "post" in methods
    }
    unlisted = {path for path in paths - set(WRITES) if not path.startswith("/study/")}
    assert unlisted == set()
    assert not any({"put", "patch", "delete"} & set(m) for m in web.app.openapi()["paths"].values())


def _one_letter_changed(cookie):
    # Not the last: some of its bits are padding, so another letter can encode the same.
    return cookie[:-5] + ("y" if cookie[-5] == "x" else "x") + cookie[-4:]


@pytest.mark.parametrize(
    "forge",
    [
        _one_letter_changed,
        lambda cookie: cookie[:-1],
        lambda cookie: cookie[:-1] + "a.b.c",
        lambda cookie: cookie[:-1] + "%C3%BC",
    ],
)
def test_a_forged_cookie_is_rejected(web, forge):
    client = web.client("anna")
    good = client.cookies[SESSION_COOKIE]
    client.cookies.clear()
    client.cookies.set(SESSION_COOKIE, forge(good))
    assert client.get("/api/items").status_code == 401


def test_a_session_ends_by_time_by_logging_out_and_when_the_account_is_shut(web, monkeypatch):
    client = web.client("anna")
    set_active(web.store, login="anna", active=False, by="owner")
    assert client.get("/api/items").status_code == 401
    set_active(web.store, login="anna", active=True, by="owner")
    client = web.client("anna")
    stolen = client.cookies[SESSION_COOKIE]
    client.write("/logout")
    thief = web.client()
    thief.cookies.set(SESSION_COOKIE, stolen)
    assert thief.get("/api/items").status_code == 401
    client = web.client("anna")
    monkeypatch.setattr(type(web.site.session_signer), "get_timestamp", lambda self: 4_000_000_000)
    assert client.get("/api/items").status_code == 401


def test_the_csrf_token_does_not_reveal_the_session(web):
    client = web.client("anna")
    token = client.cookies[SESSION_COOKIE].split(".")[0]
    assert token not in client.token
    assert token not in client.get("/label").text


def test_the_token_of_another_browsers_log_in_form_is_rejected(web):
    client, other = web.client(), web.client()
    client.get("/api/entry")
    client.token = other.get("/api/entry").json()["csrf_token"]
    answer = client.write("/api/session", json={"login": OWNER, "password": PASSWORD})
    assert answer.status_code == 403
    assert [name for name in client.cookies if name.startswith(LOGIN_FORM_COOKIE)]


def test_two_tabs_that_ask_for_the_form_at_once_can_both_log_in(web):
    client = web.client()
    first = client.get("/api/entry").json()["csrf_token"]
    cookies = list(client.cookies.jar)
    client.cookies.clear()  # the second request left before the first was answered
    client.get("/api/entry")
    for cookie in cookies:
        client.cookies.jar.set_cookie(cookie)
    client.token = first
    answer = client.write("/api/session", json={"login": OWNER, "password": PASSWORD})
    assert answer.status_code == 200
    assert not [name for name in client.cookies if name.startswith(LOGIN_FORM_COOKIE)]


def test_the_token_of_a_log_in_form_is_not_valid_for_a_session(web):
    anna = web.client("anna")
    item = anna.get("/api/items/1").json()
    own, entry = anna.token, anna.get("/api/entry").json()["csrf_token"]
    anna.token = entry
    assert anna.save(item).status_code == 403
    anna.token = own
    assert anna.save(item).status_code == 200
    anna.log_in("anna")  # where the form itself is sent, it counts
