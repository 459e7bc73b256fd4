import pytest
from pydantic import TypeAdapter, ValidationError

from glomerulab.apps.serve.schemas import ErrorResponse, Health, Mpp, Stain, error_responses
from glomerulab.apps.web.security import NOTICE
from glomerulab.cohort.schema import STAINS


def test_every_response_carries_the_notice():
    assert Health().research_use_only == NOTICE
    assert ErrorResponse(detail="x").research_use_only == NOTICE


def test_stains_are_those_of_manifests():
    stain = TypeAdapter(Stain)
    for name in STAINS:
        assert stain.validate_python(name) == name
    assert stain.json_schema()["enum"] == list(STAINS)
    with pytest.raises(ValidationError, match="H-DAB"):
        stain.validate_python("pas")


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 1000])
def test_an_impossible_scale_is_rejected(value):
    with pytest.raises(ValidationError):
        TypeAdapter(Mpp).validate_python(value)


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
