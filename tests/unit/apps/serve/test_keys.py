import json
import stat

import pytest

from glomerulab.apps.serve.auth import KeyRing, add_key, read_keys, revoke_key
from glomerulab.errors import ConfigError


def test_a_key_is_accepted_and_stored_only_as_a_hash(tmp_path):
    path = tmp_path / "keys.json"
    anna, bo = add_key(path, "anna"), add_key(path, "bo")
    ring = KeyRing(path)
    assert len(ring) == 2
    assert (ring.find(anna), ring.find(bo)) == ("anna", "bo")
    for wrong in ("", anna[:-1], anna + "x", anna.upper(), read_keys(path)[0].sha256):
        assert ring.find(wrong) is None
    assert anna not in path.read_text()
    assert len(anna) > 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_running_server_notices_new_and_revoked_keys(tmp_path):
    path = tmp_path / "keys.json"
    anna = add_key(path, "anna")
    ring = KeyRing(path)
    bo = add_key(path, "bo")
    assert ring.find(bo) == "bo"
    revoke_key(path, "anna")
    assert ring.find(anna) is None
    assert ring.find(bo) == "bo"


def test_an_unreadable_key_file_rejects_every_key(tmp_path):
    path = tmp_path / "keys.json"
    anna = add_key(path, "anna")
    ring = KeyRing(path)
    path.write_text("{")
    for _ in range(2):
        with pytest.raises(ConfigError, match="key file"):
            ring.find(anna)
    path.unlink()
    with pytest.raises(ConfigError, match="glomerulab api-key"):
        ring.find(anna)


@pytest.mark.parametrize("name", ["", "\u200b", "a\nb", "a" * 65, "../x", "a/b"])
def test_an_invalid_name_gets_no_key(tmp_path, name):
    with pytest.raises(ConfigError, match="not a valid name"):
        add_key(tmp_path / "keys.json", name)
    assert list(tmp_path.iterdir()) == []


def test_one_name_has_one_key_and_an_unknown_one_none_to_revoke(tmp_path):
    path = tmp_path / "keys.json"
    add_key(path, "肾 lab")
    with pytest.raises(ConfigError, match="already"):
        add_key(path, "肾 lab")
    with pytest.raises(ConfigError, match="肾 lab"):
        revoke_key(path, "bo")
    assert [key["name"] for key in json.loads(path.read_text())["keys"]] == ["肾 lab"]


def test_a_key_that_is_not_utf_8_is_rejected(tmp_path):
    path = tmp_path / "keys.json"
    add_key(path, "anna")
    assert KeyRing(path).find("\udcff") is None


@pytest.mark.parametrize("name", [" anna", "ANNA", "an\u200bna", "\uff41nna", "anna\u3000"])
def test_two_keys_of_one_name_are_not_made_and_any_spelling_revokes(tmp_path, name):
    path = tmp_path / "keys.json"
    key = add_key(path, "anna")
    with pytest.raises(ConfigError):
        add_key(path, name)
    if name != "ANNA":
        revoke_key(path, name)
        assert KeyRing(path).find(key) is None
