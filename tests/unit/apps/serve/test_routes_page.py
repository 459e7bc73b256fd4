import re


def test_the_page_loads_only_files_of_its_own(open_server):
    client = open_server.client()
    page = client.get("/")
    assert page.status_code == 200
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert len(loaded) == 3
    for address in loaded:
        assert address.startswith("/static/")
        assert "immutable" in client.get(address).headers["Cache-Control"]
    assert "blob:" in page.headers["Content-Security-Policy"]


def test_the_page_asks_for_a_key_only_where_one_is_needed(open_server, keyed):
    assert 'id="key"' not in open_server.client().get("/").text
    assert 'id="key"' in keyed.client().get("/").text


def test_every_field_has_a_label(keyed):
    page = keyed.client().get("/").text
    fields = re.findall(r'<(?:input|select) id="(\w+)"', page)
    assert sorted(fields) == ["image", "key", "mpp", "stain"]
    for name in fields:
        assert f'<label for="{name}">' in page
