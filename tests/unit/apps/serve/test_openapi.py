from glomerulab.apps.serve.schemas import error_responses


def test_the_description_is_complete_and_names_no_other_host(keyed, open_server):
    document = keyed.client().get("/openapi.json").json()
    assert document["security"] == [{"key": []}]
    assert document["paths"]["/health"]["get"]["security"] == []
    crop = document["paths"]["/v1/crops"]["post"]
    assert "image/png" in crop["requestBody"]["content"]
    assert {"200", "401", "413", "422", "429", "503"} <= set(crop["responses"])
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["description"] or operation["summary"]
    assert "security" not in open_server.client().get("/openapi.json").json()


def test_each_error_response_is_described():
    assert set(error_responses(401, 503)) == {401, 503}
    assert all(one["description"] for one in error_responses(401, 408, 507).values())
