import pytest

from glomerulab.apps.serve.auth import add_key
from glomerulab.apps.serve.server import announce, open_service, serve
from glomerulab.apps.serve.settings import ServeSettings
from glomerulab.errors import ConfigError


def test_a_server_on_the_network_needs_keys(trained):
    with pytest.raises(ConfigError, match="glomerulab api-key"):
        serve(ServeSettings(trained), host="0.0.0.0", port=0, echo=print)


def test_slides_need_a_folder_and_a_place_for_jobs(trained, tmp_path):
    with pytest.raises(ConfigError, match="--slides"):
        open_service(ServeSettings(trained, slides=tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="--jobs"):
        open_service(ServeSettings(trained, slides=tmp_path))
    with pytest.raises(ConfigError, match="--slides"):
        open_service(ServeSettings(trained, detector=tmp_path))


def test_the_terminal_prints_address_users_and_risks(trained, tmp_path):
    keys = tmp_path / "keys.json"
    add_key(keys, "anna")
    settings = ServeSettings(trained, keys=keys)
    service = open_service(settings)
    near = "\n".join(announce(settings, service, host="127.0.0.1", port=8800))
    far = "\n".join(announce(settings, service, host="0.0.0.0", port=8800))
    bare = "\n".join(announce(ServeSettings(trained), service, host="::1", port=8800))
    service.close()
    assert "http://127.0.0.1:8800/" in near
    assert "research use only" in near
    assert "cgn" in near
    assert "warning" not in near
    assert "unencrypted" in far
    assert "No keys" in bare


def test_an_invalid_proxy_is_reported_before_the_model_is_loaded(tmp_path):
    settings = ServeSettings(tmp_path / "no run", proxies=("nginx",))
    with pytest.raises(ConfigError, match="--proxy"):
        serve(settings, host="127.0.0.1", port=0, echo=print)
