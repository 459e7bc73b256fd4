import re

import pytest

from glomerulab.apps.web.assets import Assets
from glomerulab.apps.web.security import NOTICE, NOTICE_HEADER

ASSETS = Assets("glomerulab.apps.annotation.web")


def test_an_address_of_a_file_changes_with_the_file(tmp_path):
    assert re.fullmatch(r"/static/app\.css\?v=[0-9a-f]{12}", ASSETS.url("app.css"))
    other = Assets("glomerulab.apps.annotation.web")
    other.root = tmp_path
    (tmp_path / "app.css").write_text("body {}")
    assert other.url("app.css") != ASSETS.url("app.css")


def test_a_file_comes_with_its_kind_and_may_be_kept():
    answer = ASSETS.response("label.js")
    assert answer.media_type == "text/javascript"
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize("name", ["../app.py", "/etc/passwd", "", "nowhere.css", "./app.css"])
def test_an_unlisted_file_is_not_served(name):
    assert ASSETS.response(name) is None


def test_the_notice_states_research_use_and_fits_into_a_header():
    assert NOTICE.startswith("Research use only")
    assert "not for diagnosis" in NOTICE
    assert (NOTICE_HEADER + NOTICE).isascii()
    assert "\n" not in NOTICE
