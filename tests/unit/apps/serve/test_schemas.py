import pytest
from pydantic import TypeAdapter, ValidationError

from glomerulab.apps.serve.schemas import ErrorResponse, Health, Mpp, Stain
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
