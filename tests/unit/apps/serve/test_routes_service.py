import re


def test_a_server_reports_liveness_and_readiness(open_server, keyed):
    assert open_server.client().get("/health").json()["status"] == "alive"
    assert open_server.client().get("/ready").json() | {"research_use_only": ""} == {
        "status": "ready",
        "crops": True,
        "jobs": None,
        "research_use_only": "",
    }
    assert keyed.client().get("/ready").json()["jobs"] is True


def test_a_server_whose_predictor_has_died_is_not_ready(open_server, monkeypatch):
    predictor = type(open_server.service.model.predictor)
    monkeypatch.setattr(predictor, "is_alive", property(lambda _self: False))
    answer = open_server.client().get("/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
    assert open_server.client().get("/health").status_code == 200


def test_the_model_card_states_its_data_and_its_limits(open_server):
    card = open_server.client().get("/v1/model").json()
    assert [label["id"] for label in card["facts"]["labels"]] == ["normal", "mspgn", "fsg", "cgn"]
    assert card["facts"]["n_training_images"] == 48
    assert card["facts"]["trained_on_synthetic"] is True
    assert card["mpp"] == 0.5
    assert card["can_draw_overlays"] is True
    assert "Diagnosis" in card["not_for"]


def test_the_page_loads_only_files_of_its_own(open_server):
    client = open_server.client()
    for path, n_files in (("/", 5), ("/slides", 3), ("/model", 2), ("/programs", 2)):
        page = client.get(path)
        assert page.status_code == 200
        loaded = re.findall(r'<(?:link|script|img)[^>]* (?:src|href)="([^"#]+)"', page.text)
        assert len(loaded) == n_files
        for address in loaded:
            assert address.startswith("/static/")
            assert "immutable" in client.get(address).headers["Cache-Control"]
        assert "blob:" in page.headers["Content-Security-Policy"]


def test_the_pages_offer_the_stains_of_the_model_and_link_to_each_other(keyed):
    page = keyed.client().get("/").text
    assert re.findall(r"<option[^>]*>([^<]*)</option>", page)[1:-1] == ["PAS"]
    for path in ("/slides", "/model", "/programs"):
        assert f'href="{path}"' in page
    assert "at most 20 MiB and 16 million pixels" in page
    assert "openapi.json" in keyed.client().get("/programs").text
    assert "/v1/crops" in keyed.client().get("/programs").text
    assert "Diagnosis or treatment" in keyed.client().get("/model").text


def test_the_pages_are_in_the_language_of_the_browser_or_the_chosen_one(open_server):
    client = open_server.client()
    assert "预测单个肾小球图像" in client.get("/", headers={"Accept-Language": "zh-CN"}).text
    assert "预测单个肾小球图像" in client.get("/?language=zh").text
    assert 'lang="zh"' in client.get("/model").text  # the choice is kept
    assert "Predict a crop" in client.get("/?language=en").text
    assert client.get("/?language=<script>").status_code == 200


def test_slides_and_regions_of_the_folder_are_listed_for_clients(keyed, open_server):
    client = keyed.client("anna")
    listed = client.get("/v1/slides").json()
    assert {"slides", "regions"} <= listed.keys()
    assert keyed.client().get("/v1/slides").status_code == 401
    assert open_server.client().get("/v1/slides").status_code == 404


def test_the_page_asks_for_a_key_only_where_one_is_needed(open_server, keyed):
    assert 'id="key"' not in open_server.client().get("/").text
    assert 'id="key"' in keyed.client().get("/").text


def test_every_field_has_a_label(keyed):
    page = keyed.client().get("/").text
    fields = re.findall(r'<(?:input|select) id="(\w+)"', page)
    assert sorted(fields) == ["image", "key", "mpp", "stain"]
    for name in fields:
        assert f'<label for="{name}">' in page
