import json
import uuid

import pytest
from itsdangerous import TimestampSigner
from starlette.requests import Request

from glomerulab.apps.annotation.store.accounts import signing_key
from glomerulab.apps.annotation.web.site import Site, SiteSettings
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from glomerulab.apps.web.language import language_of
from glomerulab.apps.web.server import LOCAL_HOSTS
from glomerulab.i18n.sentences import translate_filled
from glomerulab.reports.html import script_json
from tests.support.annotation_studies import CRESCENT, NORMAL, save


def _request(**headers: str) -> Request:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request(
        {"type": "http", "headers": pairs, "path": "/", "method": "GET", "query_string": b""}
    )


@pytest.mark.parametrize(
    ("headers", "language"),
    [
        ({}, "en"),
        ({"accept_language": "zh-CN,zh;q=0.9"}, "zh"),
        ({"accept_language": "de"}, "en"),
        ({"accept_language": "zh", "cookie": "glomerulab_language=en"}, "en"),
        ({"cookie": "glomerulab_language=<script>"}, "en"),
    ],
)
def test_the_language_is_the_chosen_one_else_the_browsers(headers, language):
    assert language_of(_request(**headers)) == language


def test_data_for_scripts_cannot_end_their_element():
    value = {"note": "</script><script>alert('&')</script>", "zh": "系膜"}
    text = str(script_json(value))
    assert "<" not in text
    assert json.loads(text) == value


def test_pages_are_chinese_on_request(web):
    client = web.client("anna")
    client.write("/language", data={"language": "zh", "next": "/label"})
    page = client.get("/label").text
    assert 'lang="zh-Hans"' in page
    assert "保存并继续" in page


def test_names_are_escaped_on_pages(web):
    owner = web.client("owner")
    name = "<img src=x onerror=alert(1)>"
    owner.write("/study/people", data={"name": name, "login": "eve", "role": "annotator"})
    page = owner.get("/study/people").text
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_a_site_signs_with_the_key_of_its_database(web):
    own = TimestampSigner(signing_key(web.store), salt="glomerulab-session")
    assert own.unsign(web.site.session_signer.sign("token")) == b"token"
    again = Site(web.store, SlideCache())
    assert again.csrf_signer.get_signature("x") == web.site.csrf_signer.get_signature("x")


def test_a_site_knows_its_study_and_that_it_is_set_up(web):
    assert not web.site.needs_setup()
    assert web.site.study().settings.name == "test study"
    assert web.site.crops_folder == web.folder / "drawn"


def test_by_default_a_site_answers_to_this_computer_alone():
    assert SiteSettings().hosts == LOCAL_HOSTS


def test_messages_name_labels_and_speak_the_language_of_the_page(web):
    owner = web.client("owner")
    for image_id, labels in (("glom_000", CRESCENT), ("glom_000", NORMAL)):
        save(web.store, ("anna", "bo")[labels == NORMAL], image_id, labels)
    form = {
        "image": "glom_000",
        "expected_version": 0,
        "save_key": str(uuid.uuid4()),
        "label": ["normal", "cgn"],
    }
    english = owner.write("/study/disagreement", data=form, headers={"HX-Request": "true"}).text
    assert "Normal and Crescent exclude each other" in english
    person = {"name": "A", "login": "anna", "role": "annotator"}
    owner.cookies.set("glomerulab_language", "zh")
    chinese = owner.write("/study/disagreement", data=form, headers={"HX-Request": "true"}).text
    assert "正常肾小球与新月体形成互斥" in chinese
    assert "已被使用" in owner.write("/study/people", data=person).text
    anna = web.client("anna")
    anna.cookies.set("glomerulab_language", "zh")
    item = anna.get("/api/items/2").json()
    missing = anna.save(item, labels={"cgn": 1}).json()["detail"]
    assert missing.startswith("缺少标签 正常肾小球、系膜细胞增生")


def test_a_filled_in_message_is_translated_with_what_it_holds():
    text = "2 shape(s) could not be cut, the first because: the region lies outside its slide; "
    found = translate_filled(text + "1 other(s) were handed out", "zh", "annotation")
    assert "区域位于切片之外" in found
    assert "2" in found
    assert translate_filled("unheard of {x}", "zh", "annotation") == "unheard of {x}"
    login = "the login '{n} boxes' is taken; choose another"
    assert "'{n} boxes'" in translate_filled(login, "zh", "annotation")
    unknown = "nobody translated this message, and its commas stay"
    assert translate_filled(unknown, "zh", "annotation") == unknown
