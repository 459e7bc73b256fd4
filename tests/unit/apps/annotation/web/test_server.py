import socket
from dataclasses import replace

import pytest

from glomerulab.apps.annotation.store.database import open_store
from glomerulab.apps.annotation.web.server import announce, serve
from glomerulab.apps.annotation.web.site import Site
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from glomerulab.errors import OutputError


def test_on_the_network_the_terminal_warns(web):
    local = "\n".join(announce(web.site, host="127.0.0.1", port=8000))
    assert "http://127.0.0.1:8000" in local
    assert "research use only" in local
    assert "WARNING" not in local
    assert "unencrypted" in "\n".join(announce(web.site, host="0.0.0.0", port=8000))


def test_a_new_database_is_set_up_through_an_address_with_a_secret(tmp_path):
    with open_store(tmp_path / "new.db", create=True) as store:
        site = replace(Site(store, SlideCache()), setup_token="the-secret")
        assert "/setup?token=the-secret" in "\n".join(announce(site, host="::1", port=8000))


def test_a_taken_port_is_an_error_that_names_it(web):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match="--port") as caught:
            serve(web.site, host="127.0.0.1", port=port, tell=lambda line: None)
    assert caught.value.where == f"127.0.0.1:{port}"
